//! WebSocket connections: how a connection of HTTP/1.1 becomes one (RFC 6455), and its frames as a stream of bytes.
//!
//! ```text
//! http::serve ──▶ a handler calls offer() ──▶ 101 ──▶ HTTP ends ──▶ http::serve runs the Upgrade that offer() left
//! ```
//!
//! The frames are `tokio-tungstenite`'s. The offer is answered here, because the subprotocol is compared without regard to case
//! and comes back as the client has spelt it. Extensions are never agreed on, `permessage-deflate` neither.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderValue,
        header::{SEC_WEBSOCKET_PROTOCOL, ToStrError},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::{Sink as _, Stream as _, future::BoxFuture};
use hyper::upgrade::OnUpgrade;
use hyper_util::{rt::TokioIo, server::conn::auto::upgrade::downcast};
use parking_lot::Mutex;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::server::create_response_with_body,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{listen::Stream, mqtt, wiring::Core, x509::Peer};

/// The connection on which a request came.
#[derive(Clone)]
pub(crate) struct Connection {
    peer: Peer,
    /// Ends what it becomes.
    stop: CancellationToken,
    upgrade: Arc<Mutex<Option<Upgrade>>>,
    cut: CancellationToken,
}

/// What a connection becomes when HTTP is over.
pub(crate) struct Upgrade {
    stream: OnUpgrade,
    serve: Box<dyn FnOnce(TlsWebSocket) -> BoxFuture<'static, ()> + Send>,
}

type TlsWebSocket = WebSocket<Stream>;

/// Why a request does not open a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("The request does not open a WebSocket of RFC 6455 over HTTP/1.1.")]
    NoWebSocket,
    #[error("The WebSocket must offer the subprotocol mqtt.")]
    NoMqtt,
    #[error("As many devices are connected as may be.")]
    Full,
}

impl Connection {
    pub(crate) fn new(peer: Peer, stop: CancellationToken) -> Self {
        Self {
            peer,
            stop,
            upgrade: Arc::default(),
            cut: CancellationToken::new(),
        }
    }

    /// Ends it without another byte, as a network does.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Waits until it is cut.
    pub(crate) async fn until_cut(&self) {
        self.cut.cancelled().await;
    }

    /// Who is there.
    pub(crate) const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What a handler has left.
    pub(crate) fn take_upgrade(&self) -> Option<Upgrade> {
        self.upgrade.lock().take()
    }
}

impl Upgrade {
    /// Serves the WebSocket until its end.
    pub(crate) async fn run(self, message_bytes: usize) {
        // An error means that the client was gone before it had its 101.
        let Ok(upgraded) = self.stream.await else {
            return;
        };
        let parts = downcast::<TokioIo<Stream>>(upgraded)
            .unwrap_or_else(|_| unreachable!("all connections that HTTP is served on are these"));
        let stream = parts.io.into_inner();
        let socket = WebSocket::server(stream, parts.read_buf, message_bytes).await;
        (self.serve)(socket).await;
    }
}

/// Opens a WebSocket for `server`, on which `peer` speaks MQTT.
pub(crate) fn offer<C: Core>(
    server: &mqtt::Server<C>,
    peer: Peer,
    mut request: Request,
) -> Result<Response, Refused> {
    let mut response =
        create_response_with_body(&request, Body::empty).map_err(|_| Refused::NoWebSocket)?;
    let protocol = mqtt_as_offered(request.headers()).ok_or(Refused::NoMqtt)?;
    let (Some(connection), Some(stream)) = (
        request.extensions_mut().remove::<Connection>(),
        request.extensions_mut().remove::<OnUpgrade>(),
    ) else {
        return Err(Refused::NoWebSocket);
    };
    let slot = Arc::clone(&server.slots)
        .try_acquire_owned()
        .map_err(|_| Refused::Full)?;
    let server = server.until(connection.stop.clone());
    let serve = |socket| -> BoxFuture<'static, ()> {
        Box::pin(async move { server.serve(socket, peer, slot).await })
    };
    *connection.upgrade.lock() = Some(Upgrade {
        stream,
        serve: Box::new(serve),
    });
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    Ok(response)
}

/// The subprotocol as the client spells it: azure-iot-sdk-c writes `MQTT`. Without it the hub answers 400
/// (azure-docs issue 21306).
fn mqtt_as_offered(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers: Result<Vec<&str>, ToStrError> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .map(HeaderValue::to_str)
        .collect();
    let offers = offers.ok()?;
    let mut offers = offers.iter().flat_map(|offers| offers.split(','));
    let mqtt = offers.find(|offer| offer.trim().eq_ignore_ascii_case("mqtt"))?;
    HeaderValue::from_str(mqtt.trim()).ok()
}

/// The messages of a WebSocket as a stream of bytes: where one ends and the next begins means nothing to MQTT
/// (MQTT 3.1.1, section 6). Each write is one binary message.
pub(crate) struct WebSocket<S> {
    messages: WebSocketStream<S>,
    /// What is left of the message that was read last.
    unread: Bytes,
    /// What the peer is told at the end; none once it has been.
    farewell: Option<CloseCode>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The server's end, on a stream of which `read` was read already.
    pub(crate) async fn server(stream: S, read: Bytes, message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(message_bytes))
            .max_frame_size(Some(message_bytes));
        // Copied, because even if it is empty it keeps 16 KiB of HTTP alive.
        let copy = read.to_vec();
        drop(read);
        Self {
            messages: WebSocketStream::from_partially_read(
                stream,
                copy,
                Role::Server,
                Some(config),
            )
            .await,
            unread: Bytes::new(),
            farewell: Some(CloseCode::Normal),
        }
    }

    /// Ends reading, and remembers what to tell the peer.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a library's errors: whatever it adds, the peer is told nothing"
    )]
    fn refuse(&mut self, error: tungstenite::Error) -> io::Error {
        self.farewell = match &error {
            tungstenite::Error::Capacity(_) => Some(CloseCode::Size),
            tungstenite::Error::Utf8(_) => Some(CloseCode::Invalid),
            tungstenite::Error::Protocol(_) => Some(CloseCode::Protocol),
            // Nobody is there who could be told.
            _ => None,
        };
        into_io(error)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for WebSocket<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(Pin::new(&mut this.messages).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.unread = bytes,
                // Pings and the peer's close are answered within.
                Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_),
                )) => {}
                // MQTT 3.1.1, section 6: the server must close on a text frame.
                Some(Ok(Message::Text(_))) => {
                    this.farewell = Some(CloseCode::Unsupported);
                    let error = io::Error::new(io::ErrorKind::InvalidData, "a text message");
                    return Poll::Ready(Err(error));
                }
                Some(Err(error)) => return Poll::Ready(Err(this.refuse(error))),
                None => break,
            }
        }
        Poll::Ready(Ok(&this.unread))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.unread = self.unread.slice(count..);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut messages = Pin::new(&mut self.messages);
        ready!(messages.as_mut().poll_ready(cx)).map_err(into_io)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        messages.start_send(message).map_err(into_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_flush(cx).map_err(into_io)
    }

    /// Says goodbye and closes the stream below. The peer's own goodbye is not waited for: it has all that was written.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut messages = Pin::new(&mut this.messages);
        if let Some(code) = this.farewell {
            ready!(messages.as_mut().poll_ready(cx)).map_err(into_io)?;
            this.farewell = None;
            let frame = CloseFrame {
                code,
                reason: "".into(),
            };
            // Fails if the peer said it first and was answered.
            let _ = messages.as_mut().start_send(Message::Close(Some(frame)));
        }
        ready!(messages.as_mut().poll_close(cx)).map_err(into_io)?;
        Pin::new(messages.get_mut().get_mut()).poll_shutdown(cx)
    }
}

fn into_io(error: tungstenite::Error) -> io::Error {
    if let tungstenite::Error::Io(error) = error {
        return error;
    }
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Small, because most connections are idle; a larger frame gets room for as long as it is read.
const READ_BUFFER: usize = 2 * 1024;
