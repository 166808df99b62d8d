//! The floor: the least that a gateway of this kind can do.
//!
//! POST → QoS 1 PUBLISH → PUBACK → 204. The gateway's TLS, HTTP and MQTT libraries, its allocator, its runtime with a
//! thread for each core; one MQTT session a device, opened at its first request; a window of 16. No client credentials,
//! no checks, no limits, no queue, no reconnect.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::TaskTracker;

use crate::fleet::{Device, Fleet};
use crate::mqtt::Session;
use crate::tls::{self, Endpoint};

/// How the conductor wants it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// PEM.
    pub(crate) certificate_file: PathBuf,
    /// PEM.
    pub(crate) key_file: PathBuf,
    /// Where to publish.
    pub(crate) hub: Endpoint,
    /// The devices and their keys.
    pub(crate) fleet_file: PathBuf,
}

/// Serves until it is killed.
pub(crate) fn run(settings: &str) -> anyhow::Result<()> {
    let settings = serde_json::from_str(settings).context("the settings are no JSON of ours")?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?
        .block_on(serve(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("could not listen on {}", settings.listen))?;
    let acceptor = TlsAcceptor::from(tls::server(&settings.certificate_file, &settings.key_file)?);
    let devices = Fleet::read(&settings.fleet_file)?.devices.into_iter();
    let proxy = Arc::new(Proxy {
        device_by_id: devices.map(|device| (device.id.clone(), device)).collect(),
        tls: tls::client(&settings.hub.ca_file, &[])?.into(),
        hub: settings.hub,
        lane_by_device: Mutex::default(),
        tasks: TaskTracker::new(),
    });
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        // A client that breaks off is no concern of a proxy without limits.
        let connection = proxy.clone().serve_connection(acceptor.clone(), tcp);
        proxy.tasks.spawn(async { connection.await.ok() });
    }
}

/// Messages beyond these wait in the sender's task until a PUBACK makes room.
const WINDOW: usize = 16;

struct Proxy {
    hub: Endpoint,
    tls: TlsConnector,
    device_by_id: HashMap<String, Device>,
    lane_by_device: Mutex<HashMap<String, mpsc::Sender<Publish>>>,
    tasks: TaskTracker,
}

struct Publish {
    payload: Bytes,
    acknowledged: oneshot::Sender<()>,
}

impl Proxy {
    async fn serve_connection(
        self: Arc<Self>,
        acceptor: TlsAcceptor,
        tcp: TcpStream,
    ) -> anyhow::Result<()> {
        let stream = acceptor.accept(tcp).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2);
        let service = service_fn(|request| {
            let proxy = self.clone();
            async move { Ok::<_, Infallible>(proxy.answer(request).await) }
        });
        let io = TokioIo::new(stream);
        if is_http2 {
            http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await?;
        } else {
            http1::Builder::new().serve_connection(io, service).await?;
        }
        Ok(())
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let device = telemetry_of(request.uri().path()).and_then(|id| self.device_by_id.get(id));
        let status = match device {
            None => StatusCode::NOT_FOUND,
            Some(device) => {
                let lane = self.lane(device);
                match forward(&lane, request.into_body()).await {
                    Ok(()) => StatusCode::NO_CONTENT,
                    Err(_) => StatusCode::SERVICE_UNAVAILABLE,
                }
            }
        };
        let mut response = Response::new(Empty::new());
        *response.status_mut() = status;
        response
    }

    fn lane(self: &Arc<Self>, device: &Device) -> mpsc::Sender<Publish> {
        let mut lane_by_device = self.lane_by_device.lock();
        if let Some(lane) = lane_by_device.get(&device.id) {
            return lane.clone();
        }
        let (lane, publishes) = mpsc::channel(WINDOW);
        lane_by_device.insert(device.id.clone(), lane.clone());
        let session = self.clone().hold_session(device.id.clone(), publishes);
        self.tasks.spawn(async { session.await.ok() });
        lane
    }

    /// One task per device, from its first request to the end of the process.
    async fn hold_session(
        self: Arc<Self>,
        id: String,
        mut publishes: mpsc::Receiver<Publish>,
    ) -> anyhow::Result<()> {
        let mut session = Session::open(&self.hub, &self.tls, &self.device_by_id[&id]).await?;
        let topic = format!("devices/{id}/messages/events/");
        let mut in_flight: Vec<(u16, oneshot::Sender<()>)> = Vec::new();
        loop {
            tokio::select! {
                Some(publish) = publishes.recv(), if in_flight.len() < WINDOW => {
                    let mut out = Vec::with_capacity(256);
                    let mut next = Some(publish);
                    while let Some(Publish { payload, acknowledged }) = next {
                        let number = session.publish(&topic, &payload, &mut out)?;
                        in_flight.push((number, acknowledged));
                        next = (in_flight.len() < WINDOW)
                            .then(|| publishes.try_recv().ok())
                            .flatten();
                    }
                    session.write(&out).await?;
                }
                numbers = session.acknowledged() => {
                    for number in numbers? {
                        if let Some(index) = in_flight.iter().position(|(sent, _)| *sent == number) {
                            // The client may have gone; the message has not.
                            let _ = in_flight.swap_remove(index).1.send(());
                        }
                    }
                }
            }
        }
    }
}

async fn forward(lane: &mpsc::Sender<Publish>, body: Incoming) -> anyhow::Result<()> {
    let payload = body.collect().await?.to_bytes();
    let (acknowledged, done) = oneshot::channel();
    lane.send(Publish {
        payload,
        acknowledged,
    })
    .await?;
    Ok(done.await?)
}

fn telemetry_of(path: &str) -> Option<&str> {
    path.strip_prefix("/devices/")?
        .strip_suffix("/messages/events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_telemetry_has_a_device() {
        assert_eq!(telemetry_of("/devices/d1/messages/events"), Some("d1"));
        assert_eq!(telemetry_of("/devices/d1/twin"), None);
        assert_eq!(telemetry_of("/healthz"), None);
    }
}
