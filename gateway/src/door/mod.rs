//! The doors: connections in, with TLS or without, each bounded in what it may cost before and after it asks for
//! something.
//!
//! The guarantee: a peer that connects and says nothing, shakes hands slowly, sends half a head, or does not read its
//! answer loses its connection, and none of them holds up another. No more connections are open than the limit; beyond it
//! peers wait in the kernel's queue.

mod conn;
mod follow;
pub(crate) mod tls;

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::conn::{Conn, Patience};
use self::tls::Acceptor;
use crate::Limits;

/// How long accepting rests after it failed: usually file descriptors ran out, and some will come back.
const REST: Duration = Duration::from_millis(200);

/// One door.
pub(crate) struct Door {
    pub(crate) name: &'static str,
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Acceptor>,
    pub(crate) limits: Arc<Limits>,
}

impl Door {
    /// Takes connections in and gives each to `serve`, until the shutdown; then waits for those that are open.
    pub(crate) async fn open<S, F>(self, shutdown: CancellationToken, serve: S)
    where
        S: Fn(Conn) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Door { name, listener, tls, limits } = self;
        let room = Arc::new(Semaphore::new(limits.connections));
        let open = TaskTracker::new();
        while let Some((socket, permit)) = next(name, &listener, &room, &shutdown).await {
            let (tls, limits, serve, shutdown) = (tls.clone(), limits.clone(), serve.clone(), shutdown.clone());
            open.spawn(async move {
                let _permit = permit;
                let shaken = tokio::select! {
                    () = shutdown.cancelled() => return,
                    shaken = shake(socket, tls, &limits) => shaken,
                };
                match shaken {
                    Ok(conn) => serve(conn).await,
                    // Scanners and probes fail here all day: nothing that anybody is woken for.
                    Err(error) => tracing::debug!(door = name, %error, "no connection was made"),
                }
            });
        }
        drop(listener);
        open.close();
        open.wait().await;
    }
}

/// The next connection, or none once it is time to end.
async fn next(
    door: &'static str,
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    loop {
        let accepted = async {
            let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(socket, _)| (socket, permit))
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return None,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(door, %error, "cannot accept a connection, trying again");
                tokio::select! {
                    () = shutdown.cancelled() => return None,
                    () = sleep(REST) => {}
                }
            }
        }
    }
}

async fn shake(socket: TcpStream, tls: Option<Acceptor>, limits: &Limits) -> io::Result<Conn> {
    // Answers are small and whole: waiting for more to send would only delay them.
    socket.set_nodelay(true)?;
    match tls {
        None => Ok(Conn::plain(socket, limits.stall)),
        Some(tls) => {
            let shaken = timeout(limits.handshake, tls.now().accept(socket)).await;
            let stream =
                shaken.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake took too long"))??;
            Ok(Conn::secured(stream, limits.stall))
        }
    }
}
