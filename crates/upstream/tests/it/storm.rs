//! Many devices at once, at a hub that drops connections.

use std::{sync::Arc, time::Duration};

use store::{Done, Submission, SubmissionId, Survival};
use tokio::{task::JoinSet, time::Instant};
use upstream::config::{DeviceConfig, KeySource};

use crate::{
    hub::{Connection, Packet},
    rig::{KEY, LONG, Rig, soon, telemetry},
};

const DEVICES: u32 = 20;
const MESSAGES: u32 = 30;

/// Acknowledges what comes, and drops the connection in the middle if it `is_bad`.
async fn serve(mut connection: Connection, is_bad: bool) {
    connection.connack(true, 0).await;
    for count in 0.. {
        match connection.next_work().await {
            Packet::Publish { .. } if is_bad && count == MESSAGES / 3 => return,
            Packet::Publish { packet_id, .. } => connection.puback(packet_id.unwrap()).await,
            Packet::Puback(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) => unreachable!(),
            Packet::Disconnect | Packet::End => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_arrives_though_every_first_connection_breaks() {
    let mut rig = Rig::with(|config| {
        config.backoff_limit = Duration::from_secs(1);
        let device = |index| {
            let id = format!("dev{index}").parse().unwrap();
            DeviceConfig::new(id, KeySource::Text(KEY.into()))
        };
        config.devices = (0..DEVICES).map(device).collect();
    })
    .await;
    let hub = Arc::clone(&rig.hub);
    let mut hub_tasks = JoinSet::new();
    hub_tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let (connection, connect) = hub.connect().await;
            connections.spawn(serve(connection, seen.insert(connect.client_id)));
        }
    });

    let mut tickets = Vec::new();
    for number in 0..DEVICES * MESSAGES {
        let device = format!("dev{}", number % DEVICES).parse().unwrap();
        let submission = Submission {
            id: SubmissionId(u128::from(number) << 64),
            identity: iothub::Identity::device("hub.example".parse().unwrap(), device),
            work: Arc::new(telemetry("x")),
            survival: Survival::Ephemeral {
                deadline: (Instant::now() + LONG).into_std(),
            },
            fingerprint: None,
        };
        tickets.push(rig.store.outbox.submit(submission).await.unwrap());
    }
    for ticket in tickets {
        assert_eq!(soon(ticket).await, Ok(Ok(Done::Acknowledged)));
    }
    let ended = rig
        .upstream
        .take()
        .expect("it runs")
        .shutdown(Duration::from_secs(10))
        .await;
    assert_eq!(ended, Ok(()));
}
