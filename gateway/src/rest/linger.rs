//! The rest of a body whose answer is known before it was read.
//!
//! The guarantee: whoever is refused while it still sends can read why. A socket that is closed with bytes unread in it resets
//! the connection, over which many clients never see their answer, so what still comes is read and thrown away: for as long as an
//! answer may be left unread, up to what a long body may have, and until the peer pauses.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::header,
};
use futures::StreamExt;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};

use crate::Limits;

/// A peer that sends nothing for this long has read its answer, or never will.
const PAUSE: Duration = Duration::from_secs(2);

/// A body that is read to its end even if whoever was to read it does not.
struct Lingering {
    /// Nothing once it has ended.
    body: Option<Body>,
    /// Whether the peer sends its body only when it is asked to, which reading does.
    held_back: bool,
    limits: Arc<Limits>,
}

/// The request, whose body is read whatever becomes of it.
pub(super) fn to_its_end(request: Request, limits: &Arc<Limits>) -> Request {
    let held_back = request.headers().contains_key(header::EXPECT);
    request.map(|body| match body.is_end_stream() {
        true => body,
        false => Body::new(Lingering { body: Some(body), held_back, limits: Arc::clone(limits) }),
    })
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.held_back = false;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            this.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.held_back && !body.is_end_stream()) else { return };
        // Without a runtime there is no peer either.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(throw_away(body, self.limits.stall, PAUSE, self.limits.long_body_bytes));
        }
    }
}

async fn throw_away(body: Body, time: Duration, pause: Duration, mut room: u64) {
    let by = Instant::now() + time;
    let mut pieces = body.into_data_stream();
    while let Ok(Some(Ok(piece))) = timeout_at(by.min(Instant::now() + pause), pieces.next()).await {
        match room.checked_sub(piece.len() as u64) {
            Some(left) => room = left,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, http::HeaderValue};
    use tokio::{
        sync::mpsc::{Sender, channel},
        time::sleep,
    };
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    type Piece = Result<Bytes, std::io::Error>;

    fn body() -> (Sender<Piece>, Body) {
        let (sender, receiver) = channel(1);
        (sender, Body::from_stream(ReceiverStream::new(receiver)))
    }

    /// How many pieces of ten bytes are taken.
    async fn taken(sender: &Sender<Piece>, pieces: usize) -> usize {
        for piece in 0..pieces {
            if sender.send(Ok(Bytes::from_static(&[0; 10]))).await.is_err() {
                return piece;
            }
        }
        pieces
    }

    #[tokio::test]
    async fn no_more_is_thrown_away_than_may_be_and_for_no_longer() {
        let (sender, unread) = body();
        tokio::spawn(throw_away(unread, LONG, LONG, 1000));
        assert_eq!(taken(&sender, 100).await, 100, "all that may come");
        assert!(taken(&sender, 10).await < 10, "and no more");

        let (sender, unread) = body();
        tokio::spawn(throw_away(unread, LONG, Duration::from_millis(50), u64::MAX));
        sender.closed().await;

        let (sender, unread) = body();
        tokio::spawn(throw_away(unread, Duration::from_millis(200), LONG, u64::MAX));
        while taken(&sender, 1).await == 1 {
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_is_thrown_away_unless_its_peer_waits_to_be_asked() {
        for (expects, wanted) in [(false, 100), (true, 0)] {
            let (sender, body) = body();
            let mut request = Request::new(body);
            if expects {
                request.headers_mut().insert(header::EXPECT, HeaderValue::from_static("100-continue"));
            }
            drop(to_its_end(request, &Arc::default()));
            assert_eq!(taken(&sender, 100).await, wanted, "expects: {expects}");
        }
    }

    #[tokio::test]
    async fn who_reads_it_reads_what_was_sent() {
        let whole = to_its_end(Request::new(Body::from("one two")), &Arc::default());
        assert_eq!(whole.body().size_hint().exact(), Some(7));
        assert_eq!(to_bytes(whole.into_body(), usize::MAX).await.expect("a body"), "one two");
    }
}
