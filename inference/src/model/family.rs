//! The families of encoders that we compute, and what each calls its tensors.
//!
//! BERT, DistilBERT, RoBERTa and XLM-RoBERTa are one arithmetic (post-norm, learned absolute positions) under different
//! names. Here each part of the encoder has one name of ours, and a family says what its files call it; nothing else in
//! the crate knows a family's names.

/// A family of encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Bert,
    DistilBert,
    /// RoBERTa and XLM-RoBERTa, which differ in their tokenisers only.
    Roberta,
}

/// A part of the encoder that has a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Words,
    Positions,
    TokenTypes,
    EmbeddingNorm,
    Layer(usize, LayerPart),
}

/// A part of one transformer layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerPart {
    Query,
    Key,
    Value,
    AttentionOutput,
    AttentionNorm,
    Intermediate,
    Output,
    OutputNorm,
}

/// The classifier of a `…ForSequenceClassification`: a hidden linear map, an activation, and a linear map to the labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClassifierNames {
    /// The hidden map's name, and whether it is a part of the encoder's module (`bert.pooler.dense`).
    pub(crate) hidden: &'static str,
    pub(crate) hidden_in_encoder: bool,
    pub(crate) activation: Activation,
    pub(crate) output: &'static str,
}

/// What stands between the two maps of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Tanh,
    Relu,
}

impl Family {
    /// The values of `model_type` that are known.
    pub(crate) const MODEL_TYPES: &'static str = "bert, distilbert, roberta and xlm-roberta";

    /// The family that `model_type` names.
    pub(crate) fn of(model_type: &str) -> Option<Self> {
        match model_type {
            "bert" => Some(Self::Bert),
            "distilbert" => Some(Self::DistilBert),
            "roberta" | "xlm-roberta" => Some(Self::Roberta),
            _ => None,
        }
    }

    /// What stands before the encoder's names where it was saved with something around it.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Bert => "bert.",
            Self::DistilBert => "distilbert.",
            Self::Roberta => "roberta.",
        }
    }

    /// What the files call a part, without prefix and without `.weight` or `.bias`.
    pub(crate) fn name(self, part: Part) -> String {
        let name = match part {
            Part::Words => "embeddings.word_embeddings",
            Part::Positions => "embeddings.position_embeddings",
            Part::TokenTypes => "embeddings.token_type_embeddings",
            Part::EmbeddingNorm => "embeddings.LayerNorm",
            Part::Layer(index, part) => return self.layer(index, part),
        };
        name.to_owned()
    }

    fn layer(self, index: usize, part: LayerPart) -> String {
        match self {
            Self::Bert | Self::Roberta => {
                let part = match part {
                    LayerPart::Query => "attention.self.query",
                    LayerPart::Key => "attention.self.key",
                    LayerPart::Value => "attention.self.value",
                    LayerPart::AttentionOutput => "attention.output.dense",
                    LayerPart::AttentionNorm => "attention.output.LayerNorm",
                    LayerPart::Intermediate => "intermediate.dense",
                    LayerPart::Output => "output.dense",
                    LayerPart::OutputNorm => "output.LayerNorm",
                };
                format!("encoder.layer.{index}.{part}")
            }
            Self::DistilBert => {
                let part = match part {
                    LayerPart::Query => "attention.q_lin",
                    LayerPart::Key => "attention.k_lin",
                    LayerPart::Value => "attention.v_lin",
                    LayerPart::AttentionOutput => "attention.out_lin",
                    LayerPart::AttentionNorm => "sa_layer_norm",
                    LayerPart::Intermediate => "ffn.lin1",
                    LayerPart::Output => "ffn.lin2",
                    LayerPart::OutputNorm => "output_layer_norm",
                };
                format!("transformer.layer.{index}.{part}")
            }
        }
    }

    /// What the files call the classifier. All families read the first token's vector.
    pub(crate) fn classifier(self) -> ClassifierNames {
        match self {
            Self::Bert => ClassifierNames {
                hidden: "pooler.dense",
                hidden_in_encoder: true,
                activation: Activation::Tanh,
                output: "classifier",
            },
            Self::DistilBert => ClassifierNames {
                hidden: "pre_classifier",
                hidden_in_encoder: false,
                activation: Activation::Relu,
                output: "classifier",
            },
            Self::Roberta => ClassifierNames {
                hidden: "classifier.dense",
                hidden_in_encoder: false,
                activation: Activation::Tanh,
                output: "classifier.out_proj",
            },
        }
    }
}
