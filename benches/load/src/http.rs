//! One connection to the gateway, opened again when the server has closed it.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::calls::{Call, Calls};

/// The server.
#[derive(Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    host: String,
}

impl Target {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, host: address.to_string() }
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Whether it says when to come again.
    pub(crate) retry_after: bool,
    pub(crate) body: Bytes,
}

/// What became of the transport, in a word that can be counted.
pub(crate) type Broken = &'static str;

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Sends one of the calls and waits for the whole answer.
    pub(crate) async fn call(
        &mut self,
        target: &Target,
        calls: &Calls,
        call: &Call,
        timeout_ms: Option<u64>,
    ) -> Result<Answer, Broken> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(calls.path())
            .header(HOST, &target.host)
            .header(CONTENT_TYPE, calls.content_type());
        if let Some(lane) = calls.lane() {
            request = request.header("x-lane", lane);
        }
        if let Some(ms) = timeout_ms {
            request = request.header("x-timeout-ms", HeaderValue::from(ms));
        }
        let request = request.body(Full::new(call.body.clone())).map_err(|_| "request")?;
        self.send(target, request).await
    }

    /// Asks for something that costs nothing.
    pub(crate) async fn get(&mut self, target: &Target, path: &str) -> Result<Answer, Broken> {
        let request = Request::builder().uri(path).header(HOST, &target.host);
        let request = request.body(Full::default()).map_err(|_| "request")?;
        self.send(target, request).await
    }

    /// Whether the server has left it open.
    pub(crate) fn is_open(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    async fn send(&mut self, target: &Target, request: Request<Full<Bytes>>) -> Result<Answer, Broken> {
        // It is taken out meanwhile: a connection on which a call has failed is not used again.
        let mut sender = self.ready(target).await?;
        let answer = sender.send_request(request).await.map_err(|_| "closed")?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().contains_key(RETRY_AFTER);
        let body = answer.into_body().collect().await.map_err(|_| "cut off")?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status, retry_after, body })
    }

    async fn ready(&mut self, target: &Target) -> Result<SendRequest<Full<Bytes>>, Broken> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let stream = TcpStream::connect(target.address).await.map_err(|_| "not connected")?;
        stream.set_nodelay(true).map_err(|_| "not connected")?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| "not connected")?;
        tokio::spawn(async move {
            // What ails it is told to whoever sends the next call.
            let _ = connection.await;
        });
        Ok(sender)
    }
}
