use iothub::{AckRequest, CloudMessage, ErrorCode};

use super::*;

/// Makes so many records of feedback: messages that are purged at once.
fn feedback(rig: &mut Rig, count: usize) {
    for _ in 0..count {
        let message = CloudMessage {
            ack: AckRequest::Full,
            ..CloudMessage::default()
        };
        rig.hub.send_message(&dev1(), message, rig.now).unwrap();
        rig.hub.purge_messages(&dev1(), rig.now).unwrap();
    }
}

fn received(rig: &mut Rig) -> Option<(String, usize)> {
    let batch = rig.hub.receive_feedback(rig.now)?;
    Some((batch.lock, batch.records.len()))
}

#[test]
fn feedback_comes_at_64_records_or_after_15_seconds() {
    let mut rig = Rig::new();
    feedback(&mut rig, 63);
    assert_eq!(received(&mut rig), None);
    feedback(&mut rig, 1);
    assert_eq!(received(&mut rig).unwrap().1, 64);
    feedback(&mut rig, 1);
    rig.wait(Duration::from_secs(14));
    feedback(&mut rig, 1);
    assert_eq!(received(&mut rig), None);
    rig.wait(Duration::from_secs(1));
    assert_eq!(received(&mut rig).unwrap().1, 2);
}

#[test]
fn a_batch_is_locked_for_a_minute() {
    let mut rig = Rig::new();
    feedback(&mut rig, 64);
    let (lock, _) = received(&mut rig).unwrap();
    rig.wait(Duration::from_secs(59));
    assert_eq!(received(&mut rig), None);
    rig.wait(Duration::from_secs(1));
    let lost = rig.hub.complete_feedback(&lock, rig.now).unwrap_err();
    assert_eq!(lost.code, ErrorCode::DeviceMessageLockLost);
    let (lock, _) = received(&mut rig).unwrap();
    rig.hub.complete_feedback(&lock, rig.now).unwrap();
    rig.wait(Duration::from_secs(61));
    assert_eq!(received(&mut rig), None);
}

#[test]
fn a_batch_is_given_back_nine_times() {
    let mut rig = Rig::new();
    feedback(&mut rig, 64);
    for _ in 0..10 {
        let (lock, _) = received(&mut rig).unwrap();
        rig.hub.abandon_feedback(&lock, rig.now).unwrap();
        assert!(rig.hub.abandon_feedback(&lock, rig.now).is_err());
    }
    assert_eq!(received(&mut rig), None);
}

#[test]
fn feedback_is_kept_for_an_hour_and_not_without_bound() {
    let mut rig = Rig::with(|config| config.feedback_records = 128);
    feedback(&mut rig, 64);
    rig.wait(Duration::from_secs(3599));
    feedback(&mut rig, 64);
    rig.wait(Duration::from_secs(1));
    assert_eq!(received(&mut rig).unwrap().1, 64);
    assert_eq!(received(&mut rig), None, "the first one was too old");
    feedback(&mut rig, 192);
    assert!(received(&mut rig).is_some() && received(&mut rig).is_some());
    assert_eq!(received(&mut rig), None, "the oldest went");
}
