//! Accepting connections: bounded in number, TLS in bounded time. What fails here ends that connection and nothing else.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::shell::Shell;

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: TlsAcceptor,
    /// At a time; more wait in the backlog of the system.
    pub(crate) connections: usize,
    /// Time for a TLS handshake.
    pub(crate) handshake: Duration,
}

/// Serves connections until shutdown. What `serve` returns must end by itself when the shell stops.
pub(crate) async fn run<Serve, Served>(listener: Listener, shell: Arc<Shell>, serve: Serve)
where
    Serve: Fn(TlsStream<TcpStream>) -> Served + Send + Sync + 'static,
    Served: Future<Output = ()> + Send,
{
    let serve = Arc::new(serve);
    let slots = Arc::new(Semaphore::new(listener.connections));
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.socket.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shell.stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: they come back when connections end.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, stop, serve) = (listener.tls.clone(), shell.stop.clone(), Arc::clone(&serve));
        shell.tasks.spawn(async move {
            let _slot = slot;
            // Small packets go out at once; a socket that cannot do it still works.
            let _ = stream.set_nodelay(true);
            let handshake = tokio::select! {
                handshake = timeout(listener.handshake, tls.accept(stream)) => handshake,
                () = stop.cancelled() => return,
            };
            match handshake {
                Ok(Ok(stream)) => serve(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            }
        });
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
