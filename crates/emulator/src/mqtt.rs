//! MQTT connections, from whichever listener they come: bytes between a stream and a core.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    wiring::{Core, Step, Wiring},
    x509::Peer,
};

/// Serves the MQTT connections of one core.
pub(crate) struct Server<C: Core> {
    pub(crate) wiring: Arc<Wiring<C>>,
    /// One for each connection, over TLS or WebSocket.
    pub(crate) slots: Arc<Semaphore>,
    /// Time for one write.
    pub(crate) write: Duration,
    pub(crate) stop: CancellationToken,
}

impl<C: Core> Server<C> {
    /// Runs until the device or the core closes, or the emulator stops. While a write waits for the device nothing is read
    /// from it, so a device that does not take its acknowledgements cannot send on.
    ///
    /// What is read is lent by the stream: a connection that is idle holds no buffer here.
    pub(crate) async fn serve<S>(&self, mut stream: S, peer: Peer, slot: OwnedSemaphorePermit)
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        let _slot = slot;
        self.exchange(&mut stream, peer).await;
        // The peer is told that this is the end, if it still listens.
        let _ = timeout(self.write, stream.shutdown()).await;
    }

    /// The same for a connection that ends when `stop` says so.
    pub(crate) fn until(&self, stop: CancellationToken) -> Self {
        Self {
            wiring: Arc::clone(&self.wiring),
            slots: Arc::clone(&self.slots),
            write: self.write,
            stop,
        }
    }

    async fn exchange<S>(&self, stream: &mut S, peer: Peer)
    where
        S: AsyncBufRead + AsyncWrite + Unpin,
    {
        let (id, wake) = self.wiring.accept(peer);
        let _closes = CloseOnDrop {
            wiring: &self.wiring,
            id,
        };
        let mut may_read = true;
        loop {
            let step = tokio::select! {
                read = stream.fill_buf(), if may_read => match read {
                    Ok([]) | Err(_) => return,
                    Ok(bytes) => {
                        let (step, count) = (self.wiring.input(id, bytes), bytes.len());
                        stream.consume(count);
                        step
                    }
                },
                () = wake.notified() => self.wiring.step(id),
                () = self.stop.cancelled() => Step::END,
            };
            may_read = step.may_read;
            let packets = step.packets;
            let written = timeout(self.write, async {
                stream.write_all(&packets.bytes).await?;
                stream.flush().await
            });
            if !matches!(written.await, Ok(Ok(()))) || packets.is_last {
                return;
            }
        }
    }
}

impl<C: Core> Clone for Server<C> {
    fn clone(&self) -> Self {
        self.until(self.stop.clone())
    }
}

/// Tells the core, however the task ends.
struct CloseOnDrop<'a, C: Core> {
    wiring: &'a Wiring<C>,
    id: C::Connection,
}

impl<C: Core> Drop for CloseOnDrop<'_, C> {
    fn drop(&mut self) {
        self.wiring.closed(self.id);
    }
}
