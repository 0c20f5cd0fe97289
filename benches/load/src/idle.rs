//! Connections that have asked for something once and then keep quiet.

use std::io::Read;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use undertone_error::{Context, Error, ErrorKind, Result};

use crate::http::{Connection, Target};

/// Connections that are opened at one time.
const OPENING: usize = 64;

/// Opens the connections, says so, holds them until standard input ends, and reports how many of them were still good.
///
/// # Errors
/// `Unavailable` if one of them cannot be opened; `Internal` if standard input cannot be read.
pub(crate) async fn hold(
    target: &Arc<Target>,
    connections: usize,
    say: impl Fn(&Value) -> Result<()>,
) -> Result<Value> {
    let mut open = Vec::with_capacity(connections);
    let mut opening = JoinSet::new();
    while open.len() < connections {
        while opening.len() < OPENING.min(connections - open.len()) {
            opening.spawn(ask(Arc::clone(target), Connection::default()));
        }
        let Some(opened) = opening.join_next().await else { break };
        let opened = opened.context(ErrorKind::Internal, "opening a connection failed")?;
        open.push(opened.map_err(|broken| {
            let error = Error::new(ErrorKind::Unavailable, "cannot open a connection and ask on it");
            let error = error.with("reason", broken).with("open", open.len());
            error.help("look at the limit of open files (ulimit -n) here and there, and at gateway.max_connections")
        })?);
    }
    say(&json!({ "open": open.len() }))?;
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let ended = ended.await.context(ErrorKind::Internal, "waiting failed")?;
    ended.context(ErrorKind::Internal, "cannot read standard input")?;
    let mut alive = 0;
    for connection in open {
        alive += usize::from(connection.is_open());
    }
    Ok(json!({ "alive": alive }))
}

async fn ask(target: Arc<Target>, mut connection: Connection) -> Result<Connection, &'static str> {
    connection.get(&target, "/livez").await?;
    Ok(connection)
}
