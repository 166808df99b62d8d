//! Accepting connections: bounded in number, TLS in bounded time. What fails here ends that connection and nothing else.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{AlertDescription, InvalidMessage};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{life::Life, x509::Peer};

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: TlsAcceptor,
    /// One for each connection; while there is none, more wait in the backlog of the system.
    pub(crate) slots: Arc<Semaphore>,
    /// Time for a TLS handshake.
    pub(crate) handshake: Duration,
    /// None if it stays where it is.
    pub(crate) moves: Option<Moves>,
}

/// That a listener goes to another address, and back.
pub(crate) struct Moves {
    /// Bound, so that nobody else takes it, but not listened on: who connects to it is refused.
    pub(crate) other: TcpSocket,
    /// Whether it is to be at the address that was the other one at the start.
    pub(crate) place: watch::Receiver<bool>,
    /// Whether it is.
    pub(crate) is_there: bool,
}

/// A connection after its TLS handshake. The stream is boxed once: handed on by value, every future on its way would keep
/// room for it, and a task is as large as all of them (6.7 KB where 2.0 are enough, measured with 2,000 idle connections).
pub(crate) type Stream = Box<TlsStream<TcpStream>>;

/// A connection that is to be served.
pub(crate) struct Accepted {
    pub(crate) stream: Stream,
    /// Who is there, as far as the handshake tells.
    pub(crate) peer: Peer,
    /// Its place, given back when it is dropped.
    pub(crate) slot: OwnedSemaphorePermit,
    /// The emulator stops, or the listener moves.
    pub(crate) stop: CancellationToken,
}

/// Binds a socket, and tells the address that it got.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpListener::bind(address).await?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

/// Takes an address without listening on it.
pub(crate) fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Connections that ended there a moment ago are no hindrance.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves connections until the emulator stops. What `serve` returns must end by itself when [`Accepted::stop`] says so.
pub(crate) async fn run<Serve, Served>(mut listener: Listener, life: Life, serve: Serve)
where
    Serve: Fn(Accepted) -> Served + Send + Sync + 'static,
    Served: Future<Output = ()> + Send,
{
    let serve = Arc::new(serve);
    loop {
        let here = life.stop.child_token();
        let mut moves = listener.moves.take();
        tokio::select! {
            () = accept(&listener, &life, &here, &serve) => return,
            () = is_to_move(&mut moves) => {}
        }
        here.cancel();
        let Some(moves) = moves else {
            return;
        };
        listener = match relocate(listener, moves) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the listener could not move to its other address, and has ended");
                return;
            }
        };
    }
}

/// Waits until it is to be at the other address; without an end if that cannot be.
async fn is_to_move(moves: &mut Option<Moves>) {
    if let Some(moves) = moves {
        let is_there = moves.is_there;
        let wanted = moves.place.wait_for(|place| *place != is_there);
        if wanted.await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// Listens at the other address, and at this one no longer.
fn relocate(listener: Listener, moves: Moves) -> io::Result<Listener> {
    let here = listener.socket.local_addr()?;
    drop(listener.socket);
    let socket = moves.other.listen(BACKLOG)?;
    let moves = Moves {
        other: reserve(here)?,
        place: moves.place,
        is_there: !moves.is_there,
    };
    Ok(Listener {
        socket,
        moves: Some(moves),
        ..listener
    })
}

/// Accepts connections until the emulator stops; each ends with `here`.
async fn accept<Serve, Served>(
    listener: &Listener,
    life: &Life,
    here: &CancellationToken,
    serve: &Arc<Serve>,
) where
    Serve: Fn(Accepted) -> Served + Send + Sync + 'static,
    Served: Future<Output = ()> + Send,
{
    loop {
        let accepted = async {
            // The place is not kept while nobody comes: other listeners may share in them.
            drop(listener.slots.acquire().await);
            let accepted = listener.socket.accept().await;
            (Arc::clone(&listener.slots).acquire_owned().await, accepted)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = life.stop.cancelled() => return,
        };
        let slot = slot.expect("the semaphore of a listener is never closed");
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: they come back when connections end.
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, stop, serve) = (listener.tls.clone(), here.clone(), Arc::clone(serve));
        let time = listener.handshake;
        life.spawn(async move {
            // Boxed, because a handshake is larger than what comes after it.
            let handshake = Box::pin(shake_hands(&tls, stream, time));
            let stream = tokio::select! {
                stream = handshake => stream,
                () = stop.cancelled() => return,
            };
            if let Some(stream) = stream {
                let peer = Peer::of(stream.get_ref().1);
                serve(Accepted {
                    stream,
                    peer,
                    slot,
                    stop,
                })
                .await;
            }
        });
    }
}

async fn shake_hands(tls: &TlsAcceptor, stream: TcpStream, time: Duration) -> Option<Stream> {
    // Small packets go out at once; a socket that cannot do it still works.
    let _ = stream.set_nodelay(true);
    match timeout(time, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            match why_in_words(&error) {
                Some(why) => tracing::info!(%error, "no TLS: {why}"),
                None => tracing::debug!(%error, "TLS handshake failed"),
            }
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            None
        }
    }
}

/// What a developer has to mend at the client, where the failure shows it.
fn why_in_words(error: &io::Error) -> Option<&'static str> {
    use AlertDescription::{BadCertificate, CertificateUnknown, UnknownCA};
    let error = error.get_ref()?.downcast_ref()?;
    // Which of these a client sends is its library's affair: OpenSSL the first, Go the second, Java the third.
    if let rustls::Error::AlertReceived(UnknownCA | BadCertificate | CertificateUnknown) = error {
        Some("the client does not trust the certificate of this service")
    } else if let rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) = error {
        Some("the client speaks something else, perhaps http:// or MQTT without TLS")
    } else {
        None
    }
}

/// Connections that wait to be accepted, as `TcpListener::bind` of tokio has it.
const BACKLOG: u32 = 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_developer_can_mend_is_said_in_words() {
        let why = |error: rustls::Error| why_in_words(&io::Error::other(error));
        let distrusted = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        assert!(why(distrusted).unwrap().contains("does not trust"));
        let no_tls = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(why(no_tls).unwrap().contains("http://"));
        assert_eq!(why(rustls::Error::DecryptError), None);
        assert_eq!(why_in_words(&io::ErrorKind::UnexpectedEof.into()), None);
    }
}
