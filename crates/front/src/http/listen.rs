//! Accepting connections, TLS, and how a connection ends.
//!
//! One task per connection. ALPN says which HTTP it speaks; HTTP/1.1 is the answer to silence. Whatever a client does,
//! its connection ends: by [`Pulse`], by the client, or by shutdown, which lets requests in flight finish.

use std::{
    convert::Infallible,
    fmt::Display,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::graceful::GracefulConnection};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::{
    admin::readiness::Accepting,
    pulse::{Pulse, Silence, Watched},
};
use crate::{
    Stop,
    config::{Limits, Waits},
    metrics::{HandshakeFailure, Metrics},
};

/// What answers requests.
pub(crate) trait Application: Send + Sync + 'static {
    /// Answers one request, whatever it is. `source` is where its connection comes from.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        source: IpAddr,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send + 'static;
}

/// What connections of all listeners share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) waits: Waits,
    pub(crate) metrics: Arc<Metrics>,
    /// A permit for each connection that may be open.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: Stop,
}

/// Accepts connections until the front stops. `tls` is absent on the admin listener.
pub(crate) async fn accept<A: Application>(
    listener: TcpListener,
    _accepting: Accepting,
    tls: Option<TlsAcceptor>,
    application: Arc<A>,
    shared: Arc<Shared>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.stop.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly "too many open files": it passes when connections end, and asking again at once would spin.
                warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = shared.connections.clone().try_acquire_owned() else {
            shared.metrics.connections_refused.increment(1);
            continue;
        };
        let connection = serve(
            socket,
            peer,
            tls.clone(),
            application.clone(),
            shared.clone(),
        );
        shared.tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
}

async fn serve<A: Application>(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    application: Arc<A>,
    shared: Arc<Shared>,
) {
    // Answers are small and complete: waiting for more to send would only delay them.
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%peer, %error, "the socket is gone");
        return;
    }
    shared.metrics.connections.increment(1.0);
    match tls {
        None => serve_http1(socket, peer.ip(), application, &shared).await,
        Some(acceptor) => match handshake(acceptor, socket, peer, &shared).await {
            None => {}
            Some(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                serve_http2(stream, peer.ip(), application, &shared).await;
            }
            Some(stream) => serve_http1(stream, peer.ip(), application, &shared).await,
        },
    }
    shared.metrics.connections.decrement(1.0);
}

/// Begins TLS. A client that has not come so far when the front stops has asked for nothing yet.
async fn handshake(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    peer: SocketAddr,
    shared: &Shared,
) -> Option<TlsStream<TcpStream>> {
    let accepted = tokio::select! {
        biased;
        accepted = timeout(shared.waits.handshake, acceptor.accept(socket)) => accepted,
        () = shared.stop.stopping.cancelled() => return None,
    };
    match accepted {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            debug!(%peer, %error, "the TLS handshake failed");
            shared.metrics.handshake_failed(HandshakeFailure::Tls);
            None
        }
        Err(_) => {
            shared.metrics.handshake_failed(HandshakeFailure::Timeout);
            None
        }
    }
}

async fn serve_http1<A: Application>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    source: IpAddr,
    application: Arc<A>,
    shared: &Shared,
) {
    let pulse = Pulse::new(shared.waits.idle_http1, Some(shared.waits.header));
    let service = {
        let pulse = pulse.clone();
        service_fn(move |request| {
            let busy = pulse.begin();
            let answer = application.clone().answer(request, source);
            async move {
                let _busy = busy;
                Ok::<_, Infallible>(answer.await)
            }
        })
    };
    let header_bytes = shared.limits.header_bytes.saturating_mul(HARD_LIMIT);
    let mut http = http1::Builder::new();
    // Ours is `Pulse`.
    http.header_read_timeout(None)
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(READ_BUFFER));
    if shared.limits.headers >= USUAL_HEADERS {
        http.max_headers(shared.limits.headers.saturating_mul(HARD_LIMIT));
    }
    let stream = Watched::new(stream, pulse.clone());
    let mut connection = http.serve_connection(TokioIo::new(stream), service);
    match drive(Pin::new(&mut connection), &pulse, shared).await {
        Ended::Served => linger(connection.into_parts().io.into_inner()).await,
        Ended::Cut => {}
    }
}

async fn serve_http2<A: Application>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    source: IpAddr,
    application: Arc<A>,
    shared: &Shared,
) {
    let pulse = Pulse::new(shared.waits.idle_http2, None);
    let service = {
        let pulse = pulse.clone();
        service_fn(move |request| {
            let busy = pulse.begin();
            let answer = application.clone().answer(request, source);
            async move {
                let _busy = busy;
                Ok::<_, Infallible>(answer.await)
            }
        })
    };
    let header_bytes = shared.limits.header_bytes.saturating_mul(HARD_LIMIT);
    let connection = http2::Builder::new(Tracked(shared.tasks.clone()))
        .max_concurrent_streams(shared.limits.streams)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(Watched::new(stream, pulse.clone())), service);
    drive(pin!(connection), &pulse, shared).await;
}

/// How serving a connection ended.
enum Ended {
    /// All that was to be written is written.
    Served,
    /// In the middle of something.
    Cut,
}

/// Serves a connection until it ends, is silent for too long, or has to go.
async fn drive<C>(mut connection: Pin<&mut C>, pulse: &Pulse, shared: &Shared) -> Ended
where
    C: GracefulConnection,
    C::Error: Display,
{
    let mut alarm = pin!(sleep(shared.waits.header));
    // A token of its own: it is looked at with every request, and the one of all is a lock that all would take.
    let stopping = shared.stop.stopping.child_token();
    tokio::select! {
        biased;
        result = connection.as_mut() => return served(result),
        silence = poll_fn(|cx| pulse.poll_silence(alarm.as_mut(), cx)) => match silence {
            Silence::Idle => {}
            Silence::Head => {
                shared.metrics.slow_heads.increment(1);
                return Ended::Cut;
            }
        },
        () = stopping.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => return served(result),
            () = shared.stop.cut.cancelled() => return Ended::Cut,
            () = sleep(FAREWELL) => if !pulse.is_busy() {
                return Ended::Cut;
            },
        }
    }
}

fn served(result: Result<(), impl Display>) -> Ended {
    match result {
        Ok(()) => Ended::Served,
        Err(error) => {
            debug!(%error, "the connection ended");
            Ended::Served
        }
    }
}

/// Reads on for a moment after the last answer. A client that is still sending its body would otherwise get a reset,
/// and might lose the answer that tells it why.
async fn linger<S: AsyncRead + Unpin>(mut stream: Watched<S>) {
    let drain = async {
        let mut buffer = [0; 4096];
        let mut left = LINGER_BYTES;
        while !stream.is_at_end() && left > 0 {
            match stream.read(&mut buffer).await {
                Ok(read) => left = left.saturating_sub(read),
                Err(_) => return,
            }
        }
    };
    // Whether it ended by the client or by the clock: the connection is over.
    let _ = timeout(LINGER, drain).await;
}

/// Runs HTTP/2 streams in the front's own task set, so that shutdown waits for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often a connection that has to go, and answers nothing, is looked at.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long, and for how many bytes, a client may go on sending after its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;
/// Times a limit on headers: up to it we refuse with a body that says why, beyond it hyper answers a bare 431.
const HARD_LIMIT: usize = 2;
/// Headers of a request that hyper takes unless it is told another number. Of these it keeps a table on the stack; for
/// another number it allocates and fills one with every request.
const USUAL_HEADERS: usize = 100;
/// hyper's least buffer for reading.
const READ_BUFFER: usize = 8192;
/// Bytes that one HTTP/2 stream may have under way: the largest telemetry body, so that it needs no second round trip.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
