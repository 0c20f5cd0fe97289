//! One connection, with TLS or without, that gives up on a peer which does not read, or which never says what it wants.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// HTTP/2 begins with this many bytes that say so; before them its server watches no clock.
const PREFACE: usize = 24;

/// A connection whose writes may not stand still for longer than they are given.
pub(crate) struct Conn {
    io: Io,
    stall: Duration,
    /// Runs while a write waits for the peer.
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    opening: Option<Opening>,
}

enum Io {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// Whether a peer need not read for now: many clients send their whole body before they read, while the answer has begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// While it is held, the clock that watches writes begins anew when it has run out.
    pub(crate) fn hold(&self, held: bool) {
        self.0.store(held, Ordering::Relaxed);
    }
}

/// What a peer must have sent, and by when.
struct Opening {
    missing: usize,
    by: Pin<Box<Sleep>>,
}

impl Conn {
    pub(super) fn plain(socket: TcpStream, stall: Duration) -> Self {
        Self { io: Io::Plain(socket), stall, stalled: None, patience: Patience::default(), opening: None }
    }

    pub(super) fn secured(stream: TlsStream<TcpStream>, stall: Duration) -> Self {
        Self { io: Io::Secured(Box::new(stream)), stall, stalled: None, patience: Patience::default(), opening: None }
    }

    /// Ends the connection if the preface of HTTP/2 has not come within this time.
    pub(crate) fn opens_within(mut self, time: Duration) -> Self {
        let by = Box::pin(sleep_until(Instant::now() + time));
        self.opening = Some(Opening { missing: PREFACE, by });
        self
    }

    /// Where a call of this connection can say that its peer need not read for now.
    pub(crate) fn patience(&self) -> Patience {
        self.patience.clone()
    }

    /// What a write's outcome means for the clock that watches writes.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stall = self.stall;
        let clock = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + stall)));
        loop {
            ready!(clock.as_mut().poll(cx));
            if !self.patience.0.load(Ordering::Relaxed) {
                break;
            }
            clock.as_mut().reset(Instant::now() + stall);
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let outcome = match &mut this.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Secured(io) => Pin::new(io).poll_read(cx, buffer),
        };
        let Some(opening) = &mut this.opening else { return outcome };
        opening.missing = opening.missing.saturating_sub(buffer.filled().len() - before);
        if opening.missing == 0 {
            this.opening = None;
        } else if outcome.is_pending() && opening.by.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer says nothing")));
        }
        outcome
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Secured(io) => Pin::new(io).poll_write(cx, bytes),
        };
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, parts),
            Io::Secured(io) => Pin::new(io).poll_write_vectored(cx, parts),
        };
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Secured(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Secured(io) => Pin::new(io).poll_flush(cx),
        };
        self.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Secured(io) => Pin::new(io).poll_shutdown(cx),
        };
        self.watch(cx, outcome)
    }
}

impl Connected for Conn {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}
