//! The encoder's shape, from `config.json` as Hugging Face writes it. Everything that would change the arithmetic and
//! that we do not compute is refused here, so that a model never runs almost right.

use serde::Deserialize;
use undertone_error::{Error, ErrorKind, Result};

use super::family::Family;
use super::folder::{CONFIG, parse_json};

/// What every `config.json` must say before the rest of it can be read.
#[derive(Deserialize)]
struct Typed {
    model_type: String,
}

/// The sizes as BERT and RoBERTa call them. Keys that training alone needs are not read.
#[derive(Clone, Debug, Deserialize)]
struct BertConfig {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    #[serde(default = "tiny")]
    layer_norm_eps: f64,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    #[serde(default)]
    is_decoder: bool,
    /// Where RoBERTa's positions start, less one.
    #[serde(default = "one")]
    pad_token_id: Option<usize>,
}

/// The sizes as DistilBERT calls them.
#[derive(Clone, Debug, Deserialize)]
struct DistilBertConfig {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "gelu")]
    activation: String,
}

fn two() -> usize {
    2
}

fn one() -> Option<usize> {
    Some(1)
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn tiny() -> f64 {
    1e-12
}

fn absolute() -> String {
    "absolute".to_owned()
}

/// The sizes of an encoder, checked against each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EncoderShape {
    pub(crate) family: Family,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) attention_heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) vocabulary: usize,
    /// RoBERTa's `pad_token_id`: this token takes this row of the position table, wherever it stands, and the others count
    /// from the row behind it. No token ever takes a row before it.
    pub(crate) padding: Option<usize>,
    /// The most tokens that a sequence can have: rows of the position table, for RoBERTa those behind padding's.
    pub(crate) positions: usize,
    /// 0 where the family has none.
    pub(crate) token_types: usize,
    pub(crate) norm_epsilon: f64,
}

impl EncoderShape {
    /// Reads `config.json`.
    pub(crate) fn parse(json: &[u8]) -> Result<Self> {
        let Typed { model_type } = parse_json(CONFIG, json)?;
        let Some(family) = Family::of(&model_type) else {
            return Err(unsupported("model_type", &model_type, &format!("we compute {}", Family::MODEL_TYPES)));
        };
        match family {
            Family::DistilBert => Self::distilbert(parse_json(CONFIG, json)?),
            Family::Bert | Family::Roberta => Self::bert(family, parse_json(CONFIG, json)?),
        }
    }

    fn bert(family: Family, config: BertConfig) -> Result<Self> {
        check_activation("hidden_act", &config.hidden_act)?;
        if config.position_embedding_type != "absolute" {
            let help = "use a model with absolute positions";
            return Err(unsupported("position_embedding_type", &config.position_embedding_type, help));
        }
        if config.is_decoder {
            return Err(unsupported("is_decoder", "true", "use an encoder, whose tokens see the whole text"));
        }
        check_sizes([
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("vocab_size", config.vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ])?;
        check_division("num_attention_heads", config.num_attention_heads, "hidden_size", config.hidden_size)?;
        if !(config.layer_norm_eps.is_finite() && config.layer_norm_eps >= 0.0) {
            return Err(invalid("layer_norm_eps", config.layer_norm_eps, "1e-12 and 1e-5 are usual"));
        }
        let padding = match family {
            Family::Roberta => {
                let Some(padding) = config.pad_token_id else {
                    return Err(invalid("pad_token_id", "null", "positions start behind it; 1 is usual"));
                };
                if padding.saturating_add(1) >= config.max_position_embeddings {
                    let help =
                        format!("max_position_embeddings ({}) leave no position", config.max_position_embeddings);
                    return Err(invalid("pad_token_id", padding, &help));
                }
                Some(padding)
            }
            Family::Bert | Family::DistilBert => None,
        };
        Ok(Self {
            family,
            hidden: config.hidden_size,
            layers: config.num_hidden_layers,
            attention_heads: config.num_attention_heads,
            intermediate: config.intermediate_size,
            vocabulary: config.vocab_size,
            padding,
            positions: config.max_position_embeddings - padding.map_or(0, |padding| padding + 1),
            token_types: config.type_vocab_size,
            norm_epsilon: config.layer_norm_eps,
        })
    }

    fn distilbert(config: DistilBertConfig) -> Result<Self> {
        check_activation("activation", &config.activation)?;
        check_sizes([
            ("dim", config.dim),
            ("n_layers", config.n_layers),
            ("n_heads", config.n_heads),
            ("hidden_dim", config.hidden_dim),
            ("vocab_size", config.vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
        ])?;
        check_division("n_heads", config.n_heads, "dim", config.dim)?;
        Ok(Self {
            family: Family::DistilBert,
            hidden: config.dim,
            layers: config.n_layers,
            attention_heads: config.n_heads,
            intermediate: config.hidden_dim,
            vocabulary: config.vocab_size,
            padding: None,
            positions: config.max_position_embeddings,
            token_types: 0,
            norm_epsilon: 1e-12, // DistilBERT's is not configurable
        })
    }
}

fn check_activation(key: &'static str, value: &str) -> Result<()> {
    match value {
        "gelu" => Ok(()),
        _ => Err(unsupported(key, value, "use a model with the erf GELU (\"gelu\")")),
    }
}

fn check_sizes<const N: usize>(sizes: [(&'static str, usize); N]) -> Result<()> {
    // 2^24 is far above any of these encoders and far below where products of two sizes overflow.
    match sizes.into_iter().find(|(_, value)| !(1..=1 << 24).contains(value)) {
        Some((key, value)) => {
            Err(invalid(key, value, "sizes are positive; take the config.json that belongs to the weights"))
        }
        None => Ok(()),
    }
}

fn check_division(key: &'static str, heads: usize, of: &str, hidden: usize) -> Result<()> {
    match hidden.is_multiple_of(heads) {
        true => Ok(()),
        false => Err(invalid(key, heads, &format!("{of} ({hidden}) must be a multiple of it"))),
    }
}

fn unsupported(key: &'static str, value: &str, help: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "encoder is of a kind that we do not compute")
        .with("file", CONFIG)
        .with("key", key)
        .with("value", value)
        .help(help)
}

fn invalid(key: &'static str, value: impl std::fmt::Display, help: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "encoder's shape makes no sense")
        .with("file", CONFIG)
        .with("key", key)
        .with("value", value)
        .help(help)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn minilm() -> Value {
        json!({
            "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
            "intermediate_size": 1536, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
            "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0, "transformers_version": "4.8.2"
        })
    }

    fn roberta() -> Value {
        json!({
            "model_type": "xlm-roberta", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
            "intermediate_size": 3072, "vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1,
            "hidden_act": "gelu", "layer_norm_eps": 1e-5, "pad_token_id": 1
        })
    }

    fn distilbert() -> Value {
        json!({
            "model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072,
            "vocab_size": 30522, "max_position_embeddings": 512, "activation": "gelu", "pad_token_id": 0
        })
    }

    fn parse(config: &Value) -> Result<EncoderShape> {
        EncoderShape::parse(config.to_string().as_bytes())
    }

    #[test]
    fn a_sound_config_gives_the_shape() {
        let shape = parse(&minilm()).unwrap();
        assert_eq!((shape.hidden, shape.layers, shape.attention_heads, shape.vocabulary), (384, 6, 12, 30522));
        assert_eq!((shape.padding, shape.positions, shape.token_types), (None, 512, 2));
        let shape = parse(&distilbert()).unwrap();
        assert_eq!((shape.family, shape.hidden, shape.layers, shape.intermediate), (Family::DistilBert, 768, 6, 3072));
        assert_eq!((shape.padding, shape.positions, shape.token_types), (None, 512, 0));
    }

    #[test]
    fn positions_of_roberta_start_behind_padding() {
        let shape = parse(&roberta()).unwrap();
        assert_eq!((shape.padding, shape.positions), (Some(1), 512));
        let mut padded = roberta();
        padded["pad_token_id"] = json!(5);
        assert_eq!(parse(&padded).map(|shape| (shape.padding, shape.positions)).unwrap(), (Some(5), 508));
        padded.as_object_mut().unwrap().remove("pad_token_id");
        assert_eq!(parse(&padded).unwrap().padding, Some(1), "1 is the family's default");
    }

    #[test]
    fn every_fault_names_its_key() {
        let table = [
            (minilm(), "model_type", json!("deberta-v2"), ErrorKind::Unsupported),
            (minilm(), "hidden_act", json!("relu"), ErrorKind::Unsupported),
            (minilm(), "position_embedding_type", json!("relative_key"), ErrorKind::Unsupported),
            (minilm(), "is_decoder", json!(true), ErrorKind::Unsupported),
            (minilm(), "hidden_size", json!(0), ErrorKind::InvalidConfig),
            (minilm(), "hidden_size", json!("wide"), ErrorKind::InvalidConfig),
            (minilm(), "num_attention_heads", json!(7), ErrorKind::InvalidConfig),
            (minilm(), "vocab_size", json!(1u64 << 40), ErrorKind::InvalidConfig),
            (minilm(), "layer_norm_eps", json!(-1.0), ErrorKind::InvalidConfig),
            (roberta(), "pad_token_id", json!(null), ErrorKind::InvalidConfig),
            (roberta(), "pad_token_id", json!(513), ErrorKind::InvalidConfig),
            (distilbert(), "activation", json!("relu"), ErrorKind::Unsupported),
            (distilbert(), "n_heads", json!(7), ErrorKind::InvalidConfig),
            (distilbert(), "dim", json!(-1), ErrorKind::InvalidConfig),
        ];
        for (mut config, key, value, kind) in table {
            config[key] = value.clone();
            let error = parse(&config).unwrap_err();
            assert_eq!(error.kind(), kind, "{key}: {value}");
            assert!(error.to_string().contains(key) && error.to_string().contains("config.json"), "{error}");
            assert!(error.mend().is_some(), "{error}");
        }
        for (mut config, key) in [(minilm(), "hidden_size"), (distilbert(), "n_layers"), (roberta(), "model_type")] {
            config.as_object_mut().unwrap().remove(key);
            let error = parse(&config).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
