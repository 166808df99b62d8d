//! `tombolo store`: what an operator is told of a folder, and does with it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use iothub::{CloudMessage, Identity, Telemetry};
use serde_json::Value;
use store::{
    Arrival, ArrivalId, ConnectionEpoch, Failure, Fingerprint, InboxEntry, KeyId, Lane, NodeId,
    Partition, Settlement, Submission, SubmissionId, Survival, Work, embedded, memory,
};

use crate::program::{errors_of, printed_by, tombolo};

fn device() -> Identity {
    Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap())
}

/// A folder that has of each box one thing that waits and one dead letter.
pub(crate) async fn fill(folder: &Path, identity: &Identity) {
    let config = embedded::Config::new(folder.to_owned());
    let opened = embedded::open(memory::Config::default(), &config).unwrap();
    let store = opened.store;
    let (node, partition) = (NodeId::new("hub"), Partition::of(identity));
    let lease = store.leases.acquire(&node, partition).await.unwrap();
    for (number, text) in [(1, "given up"), (2, "waits")] {
        let telemetry = Telemetry {
            payload: text.into(),
            ..Telemetry::default()
        };
        let submission = Submission {
            id: SubmissionId(number.into()),
            identity: identity.clone(),
            work: Arc::new(Work::Telemetry(telemetry)),
            survival: Survival::Durable,
            fingerprint: None,
        };
        store.outbox.submit(submission).await.unwrap();
        let message = CloudMessage {
            payload: text.into(),
            ..CloudMessage::default()
        };
        let id = ArrivalId {
            connection: ConnectionEpoch(1),
            number,
        };
        let arrival = Arrival::Message {
            message: Arc::new(message),
            expires_at: None,
            is_tied: false,
        };
        let appended = store.inbox.append(&lease, identity, id, arrival);
        appended.await.unwrap();
    }
    let mut reader = store.outbox.open(&lease, identity).await.unwrap();
    let taken = reader.take(Lane::Telemetry, 1).await.unwrap();
    let failed = reader.settle(taken[0].id, Err(Failure::HubClosedOnPublish));
    failed.await.unwrap();
    let inbox = store.inbox.read(identity).await.unwrap();
    let InboxEntry::Message(first) = &inbox.entries[0] else {
        panic!("nothing else has come");
    };
    let rejected = store
        .inbox
        .settle(identity, &first.token, Settlement::Reject);
    rejected.await.unwrap();
}

fn tool(folder: &Path, args: &[&str]) -> Output {
    let mut command = tombolo(["store"]);
    command.args(args).arg("--folder").arg(folder);
    command.output().unwrap()
}

fn lines_of(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{}", errors_of(output));
    printed_by(output).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_folder_is_looked_into_counted_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    fill(&kept, &device()).await;
    let before = fs::read(kept.join("0000000001.log")).unwrap();

    let looked = tool(&kept, &["look"]);
    let lines = lines_of(&looked);
    assert_eq!(lines.len(), 4);
    for (line, parts) in lines.iter().zip([
        ["outbox  hub.example/dev1  telemetry 2, ", "waits since "],
        [
            "outbox  hub.example/dev1  telemetry 1, ",
            ": hub_closed_on_publish",
        ],
        ["inbox   hub.example/dev1  message 2, ", "waits since "],
        ["inbox   hub.example/dev1  message 1, ", ": Rejected"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
    let hints = errors_of(&looked);
    assert!(hints.starts_with("2 wait, 2 dead letters\n"), "{hints}");
    assert_eq!(
        lines_of(&tool(&kept, &["look", "--box", "inbox"])),
        lines[2..]
    );
    let nobody = tool(&kept, &["look", "--device", "dev2"]);
    assert_eq!(lines_of(&nobody), [""; 0]);

    let counted = lines_of(&tool(&kept, &["count", "--by-device"]));
    assert_eq!(counted.len(), 5, "{counted:?}");
    assert!(counted[0].starts_with("outbox  1 waits, "), "{counted:?}");
    assert!(counted[1].starts_with("inbox   1 waits, 5 bytes, 1 dead letter, "));
    assert!(counted[4].starts_with("hub.example/dev1  inbox   1 waits, "));

    let exported = lines_of(&tool(&kept, &["export"]));
    let letters: Vec<Value> = exported
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(letters.len(), 2);
    for (letter, side) in letters.iter().zip(["outbox", "inbox"]) {
        assert_eq!((&letter["box"], &letter["id"]), (&side.into(), &1.into()));
        // "given up" in base64.
        assert_eq!(letter["content"]["payload"], "Z2l2ZW4gdXA=");
        assert!(letter["dead"]["reason"].is_string());
    }
    let file = folder.path().join("all.ndjson");
    let to_file = ["export", "--all", "--to", file.to_str().unwrap()];
    assert_eq!(lines_of(&tool(&kept, &to_file)), [""; 0]);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 4);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = tool(&kept, &to_file);
    assert_eq!(again.status.code(), Some(1), "a file is not written over");
    assert_eq!(fs::read(kept.join("0000000001.log")).unwrap(), before);
}

#[tokio::test]
async fn dead_letters_are_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path();
    fill(kept, &device()).await;
    for wrong in [&["replay"][..], &["replay", "--all", "--device", "dev1"]] {
        let refused = tool(kept, wrong);
        assert_eq!(refused.status.code(), Some(2), "{wrong:?}");
        assert!(errors_of(&refused).contains("--device"), "{refused:?}");
    }
    let nobody = tool(kept, &["replay", "--device", "dev2"]);
    assert_eq!(lines_of(&nobody), [""; 0]);
    let replayed = tool(kept, &["replay", "--device", "dev1", "--box", "outbox"]);
    assert_eq!(
        lines_of(&replayed),
        ["outbox  hub.example/dev1  1 waits again"]
    );
    assert!(errors_of(&replayed).contains("start the gateway"));
    let rest = tool(kept, &["replay", "--all"]);
    assert_eq!(lines_of(&rest), ["inbox   hub.example/dev1  1 waits again"]);
    let looked = lines_of(&tool(kept, &["look"]));
    assert!(
        looked.iter().all(|line| line.contains("waits since")),
        "{looked:?}"
    );
    assert_eq!(looked.len(), 4);
}

#[test]
fn what_is_no_store_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["look"][..], &["count"], &["verify"], &["replay", "--all"]] {
        let refused = tool(folder.path(), command);
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        let said = errors_of(&refused);
        assert!(said.contains("holds no store"), "{said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_folder_is_verified_and_salvaged() {
    let folder = tempfile::tempdir().unwrap();
    let (kept, saved) = (folder.path().join("kept"), folder.path().join("saved"));
    let config = embedded::Config::new(kept.clone());
    let opened = embedded::open(memory::Config::default(), &config).unwrap();
    let device = Identity::device("hub.example".parse().unwrap(), "dev1".parse().unwrap());
    let registry = &opened.store.registry;
    let begun = registry.begin_key(&device, KeyId(1), Fingerprint::of(&[b"x"]));
    begun.await.unwrap();
    let verify = |path| {
        let mut command = tombolo(["store", "verify", "--folder"]);
        command.arg(path).output().unwrap()
    };
    let used = verify(&kept);
    assert!(errors_of(&used).contains("another process"), "{used:?}");
    drop(opened);
    let whole = verify(&kept);
    assert!(whole.status.success(), "{}", errors_of(&whole));
    assert!(printed_by(&whole).contains("is whole"), "{whole:?}");

    let file = kept.join("0000000001.log");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let damaged = verify(&kept);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(
        printed_by(&damaged).contains("0000000001.log"),
        "{damaged:?}"
    );
    let salvaged = tombolo(["store", "salvage", "--folder"])
        .arg(&kept)
        .arg("--to")
        .arg(&saved)
        .output()
        .unwrap();
    assert!(salvaged.status.success(), "{}", errors_of(&salvaged));
    assert!(verify(&saved).status.success());
    assert_eq!(fs::read(&file).unwrap(), bytes, "it is left as it is");
    let mistyped = verify(&folder.path().join("nowhere"));
    assert_eq!(mistyped.status.code(), Some(1));
}
