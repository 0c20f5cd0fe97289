//! The encoder's shape, from `config.json` as Hugging Face writes it. Everything that would change the arithmetic and
//! that we do not compute is refused here, so that a model never runs almost right.

use serde::Deserialize;
use undertone_error::{Error, ErrorKind, Result};

/// What `config.json` must say. Keys that training alone needs are not read.
#[derive(Clone, Debug, Deserialize)]
struct Config {
    model_type: String,
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
}

fn two() -> usize {
    2
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

/// The sizes of a BERT encoder, checked against each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct EncoderShape {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) attention_heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) vocabulary: usize,
    pub(crate) positions: usize,
    pub(crate) token_types: usize,
    pub(crate) norm_epsilon: f64,
}

impl EncoderShape {
    /// Reads `config.json`.
    pub(crate) fn parse(json: &[u8]) -> Result<Self> {
        let config: Config = super::folder::parse_json("config.json", json)?;
        let refuse = |key: &'static str, value: &str, help: &str| {
            Err(Error::new(ErrorKind::Unsupported, "encoder is of a kind that we do not compute")
                .with("file", "config.json")
                .with("key", key)
                .with("value", value)
                .help(help))
        };
        if config.model_type != "bert" {
            return refuse("model_type", &config.model_type, "use a model of the BERT family (model_type \"bert\")");
        }
        if config.hidden_act != "gelu" {
            return refuse("hidden_act", &config.hidden_act, "use a model with the erf GELU (\"gelu\")");
        }
        if config.position_embedding_type != "absolute" {
            return refuse(
                "position_embedding_type",
                &config.position_embedding_type,
                "use a model with absolute positions",
            );
        }
        let sizes = [
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("num_attention_heads", config.num_attention_heads),
            ("intermediate_size", config.intermediate_size),
            ("vocab_size", config.vocab_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ];
        // 2^24 is far above any BERT and far below where products of two sizes overflow.
        if let Some((key, value)) = sizes.into_iter().find(|(_, value)| !(1..=1 << 24).contains(value)) {
            return Err(invalid(key, value, "sizes are positive; take the config.json that belongs to the weights"));
        }
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let help = format!("hidden_size ({}) must be a multiple of it", config.hidden_size);
            return Err(invalid("num_attention_heads", config.num_attention_heads, &help));
        }
        if !(config.layer_norm_eps.is_finite() && config.layer_norm_eps >= 0.0) {
            return Err(invalid("layer_norm_eps", config.layer_norm_eps, "1e-12 is usual"));
        }
        Ok(Self {
            hidden: config.hidden_size,
            layers: config.num_hidden_layers,
            attention_heads: config.num_attention_heads,
            intermediate: config.intermediate_size,
            vocabulary: config.vocab_size,
            positions: config.max_position_embeddings,
            token_types: config.type_vocab_size,
            norm_epsilon: config.layer_norm_eps,
        })
    }
}

fn invalid(key: &'static str, value: impl std::fmt::Display, help: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, "encoder's shape makes no sense")
        .with("file", "config.json")
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
            "hidden_act": "gelu", "layer_norm_eps": 1e-12, "transformers_version": "4.8.2"
        })
    }

    #[test]
    fn a_sound_config_gives_the_shape() {
        let shape = EncoderShape::parse(minilm().to_string().as_bytes()).unwrap();
        assert_eq!((shape.hidden, shape.layers, shape.attention_heads, shape.vocabulary), (384, 6, 12, 30522));
    }

    #[test]
    fn every_fault_names_its_key() {
        let table = [
            ("model_type", json!("roberta"), ErrorKind::Unsupported),
            ("hidden_act", json!("relu"), ErrorKind::Unsupported),
            ("position_embedding_type", json!("relative_key"), ErrorKind::Unsupported),
            ("hidden_size", json!(0), ErrorKind::InvalidConfig),
            ("hidden_size", json!("wide"), ErrorKind::InvalidConfig),
            ("num_attention_heads", json!(7), ErrorKind::InvalidConfig),
            ("vocab_size", json!(1u64 << 40), ErrorKind::InvalidConfig),
            ("layer_norm_eps", json!(-1.0), ErrorKind::InvalidConfig),
        ];
        for (key, value, kind) in table {
            let mut config = minilm();
            config[key] = value.clone();
            let error = EncoderShape::parse(config.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.kind(), kind, "{key}: {value}");
            assert!(error.to_string().contains(key) && error.to_string().contains("config.json"), "{error}");
        }
        let mut config = minilm();
        config.as_object_mut().unwrap().remove("hidden_size");
        let error = EncoderShape::parse(config.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("hidden_size"), "{error}");
    }
}
