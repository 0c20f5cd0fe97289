//! The commands that run once and end.

pub(crate) mod accept_gap;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod dead;
pub(crate) mod forget;
pub(crate) mod generate;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod maintain;
pub(crate) mod model;
pub(crate) mod normalize;
mod output;
pub(crate) mod rescore;
pub(crate) mod schema;
pub(crate) mod score;
mod texts;
mod topics;
mod verify;
