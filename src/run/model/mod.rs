//! What scores the stream on Kafka: the engine, or, in a binary built for measuring the stream alone, something that costs
//! nothing.

#[cfg(feature = "stub-model")]
mod stub;

use std::sync::Arc;

use undertone_inference::Engine;

#[cfg(feature = "stub-model")]
pub(super) use self::stub::Stub as Model;
#[cfg(not(feature = "stub-model"))]
pub(super) type Model = Engine;

#[cfg(not(feature = "stub-model"))]
pub(super) fn scorer(engine: &Engine) -> Arc<Model> {
    Arc::new(engine.clone())
}

#[cfg(feature = "stub-model")]
pub(super) fn scorer(_: &Engine) -> Arc<Model> {
    Arc::new(Model)
}
