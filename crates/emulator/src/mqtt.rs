//! One device's connection: bytes between its socket and the hub.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::{
    hub::ConnectionId,
    shell::{Packets, Shell, Step},
};

/// Runs until the device or the hub closes. While a write waits for the device nothing is read from it, so a device that
/// does not take its acknowledgements cannot send on.
pub(crate) async fn serve(shell: Arc<Shell>, mut stream: TlsStream<TcpStream>, write: Duration) {
    let (id, wake) = shell.accept();
    let _closes = CloseOnDrop { shell: &shell, id };
    let mut buffer = vec![0; FIRST_READ];
    let mut may_read = true;
    loop {
        let step = tokio::select! {
            read = stream.read(&mut buffer), if may_read => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    let step = shell.input(id, &buffer[..count]);
                    if count == buffer.len() && count < LARGEST_READ {
                        buffer.resize(count * 2, 0);
                    }
                    step
                }
            },
            () = wake.notified() => shell.step(id),
            () = shell.stop.cancelled() => Step { packets: Packets::END, may_read: false },
        };
        may_read = step.may_read;
        let packets = step.packets;
        let is_last = packets.is_last;
        let written = timeout(write, async {
            stream.write_all(&packets.bytes).await?;
            if is_last {
                stream.shutdown().await
            } else {
                stream.flush().await
            }
        });
        if !matches!(written.await, Ok(Ok(()))) || is_last {
            return;
        }
    }
}

/// Tells the hub, however the task ends.
struct CloseOnDrop<'a> {
    shell: &'a Shell,
    id: ConnectionId,
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.shell.closed(self.id);
    }
}

/// Small, because most connections are idle; doubled for those that fill it.
const FIRST_READ: usize = 2 * 1024;
const LARGEST_READ: usize = 64 * 1024;
