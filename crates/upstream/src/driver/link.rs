//! The sockets of one session: the one in use, the next one, and one that is being opened.
//!
//! An idle session must cost little, so no buffer outlives a call: what is read goes through a buffer of the thread into
//! the session, what is to be written is what the session gave and the socket has not taken.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use session::LossReason;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::client::TlsStream;

use crate::{
    connect::{ConnectError, Door},
    node::Hub,
    pace::{Rank, Turn},
};

/// The sockets of one session.
#[derive(Default)]
pub(super) struct Link {
    opening: Option<Opening>,
    next: Option<Box<Connection>>,
    current: Option<Box<Connection>>,
    /// Whether somebody wants to know when everything is written.
    is_write_awaited: bool,
}

/// What happened to the sockets.
pub(super) enum LinkEvent {
    /// The socket that was asked for is there.
    Opened {
        /// What to connect with.
        credentials: session::Credentials,
        /// How long name, TCP and TLS took.
        took: Duration,
    },
    /// It could not be had.
    OpenFailed(ConnectError),
    /// The session was given what the hub sent.
    Read,
    /// Everything that was to be written is with the hub's TCP.
    Written,
    /// The socket in use is gone.
    Lost(LossReason),
}

struct Opening {
    turn: Arc<Turn>,
    credentials: session::Credentials,
    socket: Pin<Box<dyn Future<Output = Opened> + Send>>,
}

type Opened = Result<(TlsStream<TcpStream>, Duration), ConnectError>;

struct Connection {
    stream: TlsStream<TcpStream>,
    unwritten: VecDeque<Bytes>,
    is_flushed: bool,
}

impl Link {
    /// Begins to open a socket; it waits for its turn at the hub first. Takes the place of one that is being opened.
    pub(super) fn open(&mut self, hub: &Arc<Hub>, credentials: session::Credentials, rank: Rank) {
        let turn = Arc::new(hub.turnstile.queue(rank));
        let socket = Box::pin({
            let (hub, turn) = (Arc::clone(hub), Arc::clone(&turn));
            async move {
                turn.admitted().await;
                let begun = Instant::now();
                let stream = hub.endpoint.connect(Door::Mqtt).await?;
                Ok((stream, begun.elapsed()))
            }
        });
        self.opening = Some(Opening {
            turn,
            credentials,
            socket,
        });
    }

    /// A client waits: if the socket waits for its turn, it goes before those that nobody waits for.
    pub(super) fn hurry(&self) {
        if let Some(opening) = &self.opening {
            opening.turn.hurry();
        }
    }

    /// Bytes for the socket in use.
    pub(super) fn send(&mut self, bytes: Bytes) {
        if let Some(connection) = &mut self.current {
            connection.unwritten.push_back(bytes);
            connection.is_flushed = false;
        }
    }

    /// Asks for [`LinkEvent::Written`].
    pub(super) const fn await_write(&mut self) {
        self.is_write_awaited = true;
    }

    /// Writes what is left, ends the socket in use and goes over to the next one, if there is one.
    pub(super) async fn switch(&mut self) {
        if let Some(connection) = self.current.take() {
            connection.finish().await;
        }
        self.current = self.next.take();
    }

    /// Writes what is left and ends all sockets, also the one that is being opened.
    pub(super) async fn close(&mut self) {
        self.opening = None;
        self.next = None;
        self.switch().await;
    }

    /// Does what can be done without waiting; `input` gets what the hub sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        input: impl FnMut(&[u8]),
    ) -> Poll<LinkEvent> {
        if let Poll::Ready(event) = self.poll_opening(cx) {
            return Poll::Ready(event);
        }
        let Some(connection) = &mut self.current else {
            return Poll::Pending;
        };
        match connection.poll_write(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(self.lose(LossReason::Socket)),
            Poll::Ready(Ok(())) if self.is_write_awaited => {
                self.is_write_awaited = false;
                return Poll::Ready(LinkEvent::Written);
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match ready!(connection.poll_read(cx, input)) {
            Ok(Input::Some) => Poll::Ready(LinkEvent::Read),
            Ok(Input::End) => Poll::Ready(self.lose(LossReason::ClosedByHub)),
            Err(_) => Poll::Ready(self.lose(LossReason::Socket)),
        }
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        let Some(opening) = &mut self.opening else {
            return Poll::Pending;
        };
        let opened = ready!(opening.socket.as_mut().poll(cx));
        let credentials = opening.credentials.clone();
        self.opening = None;
        Poll::Ready(match opened {
            Err(error) => LinkEvent::OpenFailed(error),
            Ok((stream, took)) => {
                let connection = Some(Box::new(Connection::new(stream)));
                if self.current.is_none() {
                    self.current = connection;
                } else {
                    self.next = connection;
                }
                LinkEvent::Opened { credentials, took }
            }
        })
    }

    fn lose(&mut self, reason: LossReason) -> LinkEvent {
        self.current = self.next.take();
        LinkEvent::Lost(reason)
    }
}

enum Input {
    Some,
    End,
}

impl Connection {
    const fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            unwritten: VecDeque::new(),
            is_flushed: true,
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = SLICES.min(self.unwritten.len());
            for (slice, bytes) in slices.iter_mut().zip(&self.unwritten) {
                *slice = IoSlice::new(bytes);
            }
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.unwritten.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.unwritten.pop_front();
        }
    }

    /// Reads as much as is there, within reason.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut input: impl FnMut(&[u8]),
    ) -> Poll<io::Result<Input>> {
        SCRATCH.with_borrow_mut(|scratch| {
            for turn in 0..READS_AT_ONCE {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                    Poll::Pending if turn == 0 => return Poll::Pending,
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => input(buffer.filled()),
                    // What was read before the end comes first; the end comes again.
                    Poll::Ready(_) if turn > 0 => break,
                    Poll::Ready(Ok(())) => return Poll::Ready(Ok(Input::End)),
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Poll::Ready(Ok(Input::End));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(Input::Some))
        })
    }

    async fn finish(mut self: Box<Self>) {
        let farewell = async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            self.stream.shutdown().await
        };
        // Whether the hub has read it cannot be known either way.
        let _ = timeout(FAREWELL, farewell).await;
    }
}

thread_local! {
    /// Where sockets are read into: of the size of the largest TLS record.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 16 * 1024].into());
}

/// Slices of one write, and so of one TLS record.
const SLICES: usize = 8;

/// Reads before somebody else has a turn.
const READS_AT_ONCE: usize = 4;

/// Longest time for the last bytes to a hub that does not read.
const FAREWELL: Duration = Duration::from_secs(1);
