//! When a connection has been silent for too long.
//!
//! ```text
//!   idle --first byte of a head--> head --request--> busy --last answer--> idle
//!    | idle limit                   | head limit
//!    v                              v
//!   closed in order                closed at once
//! ```
//!
//! hyper's own header timeout also runs between requests, so it cannot tell a client that keeps its connection from
//! one that never finishes its headers.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// What a connection is doing, as far as its limits need to know.
#[derive(Debug)]
pub(super) struct Pulse {
    phase: Mutex<Phase>,
    /// How long the connection may be idle.
    idle: Duration,
    /// How long a head may take. Absent for HTTP/2, where bytes between requests need not belong to a head.
    head: Option<Duration>,
}

#[derive(Debug)]
enum Phase {
    /// No request, since then.
    Idle(Instant),
    /// The first bytes of a head have come, at that time.
    Head(Instant),
    /// So many requests are being answered.
    Busy(u32),
}

/// Which limit was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Silence {
    /// No request for too long.
    Idle,
    /// A head that does not end.
    Head,
}

/// Stands for a request that is being answered.
pub(super) struct Busy(Arc<Pulse>);

impl Pulse {
    pub(super) fn new(idle: Duration, head: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            phase: Mutex::new(Phase::Idle(Instant::now())),
            idle,
            head,
        })
    }

    /// A request begins. It ends when the answer is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        let mut phase = self.phase.lock();
        *phase = match *phase {
            Phase::Busy(requests) => Phase::Busy(requests + 1),
            Phase::Idle(_) | Phase::Head(_) => Phase::Busy(1),
        };
        Busy(self.clone())
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Busy(_))
    }

    /// Ready when a limit is reached. Call it after the connection was polled, for that may have moved the limit.
    pub(super) fn poll_silence(
        &self,
        mut alarm: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Silence> {
        loop {
            let Some((due, silence)) = self.due() else {
                // No limit now. It stays set, so that whatever comes next is seen in time.
                ready!(alarm.as_mut().poll(cx));
                alarm.as_mut().reset(Instant::now() + self.idle);
                continue;
            };
            if alarm.deadline() > due {
                alarm.as_mut().reset(due);
            }
            ready!(alarm.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(silence);
            }
            // It was set for an earlier time than the one that counts.
            alarm.as_mut().reset(due);
        }
    }

    /// Which limit there is, and when it is reached; none while requests are answered.
    fn due(&self) -> Option<(Instant, Silence)> {
        match *self.phase.lock() {
            Phase::Idle(since) => Some((since + self.idle, Silence::Idle)),
            Phase::Head(since) => Some((since + self.head.unwrap_or(self.idle), Silence::Head)),
            Phase::Busy(_) => None,
        }
    }

    fn on_bytes(&self) {
        if self.head.is_some() {
            let mut phase = self.phase.lock();
            if let Phase::Idle(_) = *phase {
                *phase = Phase::Head(Instant::now());
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut phase = self.0.phase.lock();
        *phase = match *phase {
            Phase::Busy(requests) if requests > 1 => Phase::Busy(requests - 1),
            Phase::Busy(_) | Phase::Idle(_) | Phase::Head(_) => Phase::Idle(Instant::now()),
        };
    }
}

/// A stream that tells its [`Pulse`] of the bytes that come.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    pulse: Arc<Pulse>,
    is_at_end: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self {
            stream,
            pulse,
            is_at_end: false,
        }
    }

    /// Whether the other side has closed.
    pub(super) const fn is_at_end(&self) -> bool {
        self.is_at_end
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.pulse.on_bytes();
        } else {
            self.is_at_end = true;
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::{advance, sleep},
    };

    use super::*;

    const IDLE: Duration = Duration::from_secs(120);
    const HEAD: Duration = Duration::from_secs(10);

    async fn silence(pulse: &Pulse) -> (Silence, u64) {
        let start = Instant::now();
        let mut alarm = std::pin::pin!(sleep(IDLE));
        let silence = poll_fn(|cx| pulse.poll_silence(alarm.as_mut(), cx)).await;
        (silence, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_has_the_idle_limit() {
        let pulse = Pulse::new(IDLE, Some(HEAD));
        assert_eq!(silence(&pulse).await, (Silence::Idle, 120));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_own_limit_from_its_first_byte_on() {
        let pulse = Pulse::new(IDLE, Some(HEAD));
        let (mut client, server) = duplex(64);
        let mut server = Watched::new(server, pulse.clone());
        advance(Duration::from_secs(100)).await;
        for byte in b"GE" {
            client.write_all(&[*byte]).await.unwrap();
            server.read_u8().await.unwrap();
            advance(Duration::from_secs(4)).await;
        }
        assert_eq!(silence(&pulse).await, (Silence::Head, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_as_long_as_it_likes() {
        let pulse = Pulse::new(IDLE, Some(HEAD));
        let (first, second) = (pulse.begin(), pulse.begin());
        advance(Duration::from_secs(500)).await;
        drop(first);
        advance(Duration::from_secs(500)).await;
        drop(second);
        advance(Duration::from_secs(20)).await;
        assert_eq!(silence(&pulse).await, (Silence::Idle, 100));
    }
}
