//! Twin reads, patches of reported properties, changes of desired ones.

use iothub::twin::TwinVersion;
use tombolo_session::{Event, NotTaken, TwinError, WorkId};

use crate::{
    packets::{self, Publish},
    rig::{EVERYTHING, NOTHING, Rig, seconds},
};

/// The request id at the end of a topic.
fn rid(publish: &Publish) -> &str {
    publish.topic.split_once("$rid=").unwrap().1
}

fn response(status: u16, rid: &str, rest: &str, body: &str) -> Vec<u8> {
    let topic = format!("$iothub/twin/res/{status}/?$rid={rid}{rest}");
    packets::publish(None, &topic, body.as_bytes())
}

fn publishes(rig: &mut Rig) -> Vec<Publish> {
    let others = rig.acknowledge_all();
    let publish = |sent| match sent {
        packets::Sent::Publish(publish) => publish,
        other => panic!("{other:?}"),
    };
    others.into_iter().map(publish).collect()
}

const TWIN: &str = r#"{"desired":{"interval":5,"$version":7},"reported":{"$version":3}}"#;
const THROTTLED: &str = r#"{"errorCode":429001,"trackingId":"t","message":"slow","timestampUtc":"2026-01-01T00:00:00Z","info":null}"#;

#[test]
fn a_read_is_done_by_its_response() {
    let mut rig = Rig::online(NOTHING);
    let get = rig.twin_get();
    let sent = rig.published();
    assert!(sent[0].topic.starts_with("$iothub/twin/GET/?$rid="));
    assert_eq!((sent[0].id, sent[0].payload.len()), (None, 0));
    rig.hub(&response(200, "zz", "", TWIN));
    rig.hub(&response(200, "0", "", TWIN));
    assert!(rig.events().is_empty(), "not what was asked");
    rig.hub(&response(200, rid(&sent[0]), "", TWIN));
    let Event::TwinRead {
        id,
        result: Ok(twin),
    } = rig.event()
    else {
        panic!("no twin");
    };
    assert_eq!((id, twin.desired.version), (get, TwinVersion(7)));
    rig.hub(&response(200, rid(&sent[0]), "", TWIN));
    assert!(rig.events().is_empty(), "one answer per read");
}

#[test]
fn a_read_without_a_response_is_asked_again_with_growing_patience() {
    let mut rig = Rig::online(NOTHING);
    let get = rig.twin_get();
    let first = rig.published();
    let mut asked_at = Vec::new();
    for second in 1..=35 {
        rig.wait(seconds(1));
        for again in publishes(&mut rig) {
            assert_eq!(again, first[0], "the same, so that a late answer counts");
            asked_at.push(second);
        }
    }
    assert_eq!(asked_at, [5, 15, 30]);
    rig.hub(&response(200, rid(&first[0]), "", TWIN));
    assert!(matches!(rig.event(), Event::TwinRead { id, result: Ok(_) } if id == get));
}

#[test]
fn a_patch_is_done_by_its_response_with_or_without_a_version() {
    let mut rig = Rig::online(NOTHING);
    for (rest, expected) in [("&$version=12", Some(TwinVersion(12))), ("", None)] {
        let patch = rig.patch(r#"{"fw":"2","gone":null}"#);
        let sent = rig.published();
        assert!(
            sent[0]
                .topic
                .starts_with("$iothub/twin/PATCH/properties/reported/?$rid=")
        );
        assert_eq!(sent[0].payload, br#"{"fw":"2","gone":null}"#);
        rig.hub(&response(204, rid(&sent[0]), rest, ""));
        let Event::ReportedPatched {
            id,
            result: Ok(version),
        } = rig.event()
        else {
            panic!("not patched");
        };
        assert_eq!((id, version), (patch, expected));
    }
}

#[test]
fn patches_follow_one_another_and_reads_need_not_wait() {
    let mut rig = Rig::online(NOTHING);
    rig.patch(r#"{"a":1}"#);
    rig.patch(r#"{"a":2}"#);
    rig.twin_get();
    let sent = rig.published();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].payload, br#"{"a":1}"#);
    assert!(sent[1].topic.contains("/GET/"));
    rig.hub(&response(204, rid(&sent[0]), "", ""));
    assert_eq!(rig.published()[0].payload, br#"{"a":2}"#);
}

#[test]
fn a_patch_without_a_response_goes_out_again_on_the_next_connection_before_later_ones() {
    let mut rig = Rig::online(NOTHING);
    rig.patch(r#"{"a":1}"#);
    rig.patch(r#"{"a":2}"#);
    let old = rig.published();
    rig.wait(seconds(4));
    assert_eq!(rig.sent(), [], "not on the same connection");
    rig.reconnect(true);
    let again = publishes(&mut rig);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].payload, br#"{"a":1}"#);
    rig.events();
    rig.hub(&response(204, rid(&old[0]), "", ""));
    assert!(rig.events().is_empty(), "an answer of the old connection");
    rig.hub(&response(204, rid(&again[0]), "", ""));
    assert!(matches!(rig.event(), Event::ReportedPatched { .. }));
    assert_eq!(rig.published()[0].payload, br#"{"a":2}"#);
}

/// What the hub is told next, and who hears of it.
fn told(rig: &mut Rig) -> (Vec<u8>, Vec<WorkId>) {
    let sent = rig.published();
    assert_eq!(sent.len(), 1);
    rig.hub(&response(204, rid(&sent[0]), "&$version=7", ""));
    let done = rig.events().into_iter().map(patched);
    (sent[0].payload.clone(), done.collect())
}

fn patched(event: Event) -> WorkId {
    let Event::ReportedPatched {
        id,
        result: Ok(Some(TwinVersion(7))),
    } = event
    else {
        panic!("{event:?}");
    };
    id
}

#[test]
fn patches_that_wait_and_may_be_joined_are_one() {
    let mut rig = Rig::online(NOTHING);
    let first = rig.patch_jointly(r#"{"a":1}"#);
    let joined = [r#"{"b":1}"#, r#"{"a":2,"b":null}"#, r#"{"c":{"d":1}}"#];
    let joined = joined.map(|patch| rig.patch_jointly(patch));
    assert_eq!(rig.session.room().twin, 6, "what is asked, and the rest");
    // These cannot be one patch with what is before them.
    let apart = rig.patch_jointly(r#"{"b":{"e":1}}"#);
    let waited_for = rig.patch(r#"{"a":3}"#);
    let last = rig.patch_jointly(r#"{"a":4}"#);
    for (payload, ids) in [
        (&br#"{"a":1}"#[..], vec![first]),
        (br#"{"b":null,"a":2,"c":{"d":1}}"#, joined.to_vec()),
        (br#"{"b":{"e":1}}"#, vec![apart]),
        (br#"{"a":3}"#, vec![waited_for]),
        (br#"{"a":4}"#, vec![last]),
    ] {
        assert_eq!(told(&mut rig), (payload.to_vec(), ids));
    }
}

#[test]
fn joined_patches_are_cancelled_one_by_one_and_lost_together() {
    let mut rig = Rig::online(NOTHING);
    rig.patch(r#"{"a":0}"#);
    let sent = rig.published();
    let joined = [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"b":1}"#].map(|patch| rig.patch_jointly(patch));
    rig.session.cancel(joined[1], rig.now);
    rig.hub(&response(204, rid(&sent[0]), "", ""));
    rig.events();
    rig.published();
    rig.reconnect(true);
    let again = publishes(&mut rig);
    rig.events();
    rig.hub(&response(204, rid(&again[0]), "&$version=7", ""));
    let ids = rig.events().into_iter().map(patched);
    assert!(ids.eq([joined[0], joined[2]]));
}

#[test]
fn a_cancelled_patch_makes_way_for_the_next() {
    let mut rig = Rig::online(NOTHING);
    let first = rig.patch(r#"{"a":1}"#);
    rig.patch(r#"{"a":2}"#);
    let sent = rig.published();
    rig.session.cancel(first, rig.now);
    assert_eq!(rig.published()[0].payload, br#"{"a":2}"#);
    rig.hub(&response(204, rid(&sent[0]), "", ""));
    assert!(rig.events().is_empty());
}

#[test]
fn the_hubs_errors_are_handed_up() {
    let mut rig = Rig::online(NOTHING);
    rig.twin_get();
    let sent = rig.published();
    rig.hub(&response(429, rid(&sent[0]), "", THROTTLED));
    let Event::TwinRead {
        result: Err(error), ..
    } = rig.event()
    else {
        panic!("no error");
    };
    assert!(error.is_retryable());
    let TwinError::Refused {
        status: 429,
        error: Some(error),
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(error.error_code, 429_001);

    rig.patch(r#"{"a":1}"#);
    let sent = rig.published();
    rig.hub(&response(400, rid(&sent[0]), "", "not json"));
    let Event::ReportedPatched {
        result: Err(error), ..
    } = rig.event()
    else {
        panic!("no error");
    };
    assert!(!error.is_retryable());
    assert!(matches!(
        error,
        TwinError::Refused {
            status: 400,
            error: None
        }
    ));

    rig.twin_get();
    let sent = rig.published();
    rig.hub(&response(200, rid(&sent[0]), "", "[]"));
    assert!(matches!(
        rig.event(),
        Event::TwinRead {
            result: Err(TwinError::Unreadable(_)),
            ..
        }
    ));
}

#[test]
fn the_window_of_the_twin_lane_is_its_own() {
    let mut rig = Rig::online(NOTHING);
    for _ in 0..8 {
        rig.twin_get();
    }
    assert_eq!(rig.session.room().twin, 0);
    let refused = rig.session.twin_get(WorkId(99), rig.now);
    assert_eq!(refused, Err(NotTaken::NoRoom));
    rig.publish("has room");
}

#[test]
fn changes_of_desired_properties_are_handed_up_and_a_gap_is_noticed() {
    let mut rig = Rig::online(EVERYTHING);
    let mut change = |version: u64, body: &str| {
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        rig.hub(&packets::publish(None, &topic, body.as_bytes()));
        rig.events()
    };
    assert!(matches!(
        &change(8, r#"{"interval":5,"old":null,"$version":8}"#)[..],
        [Event::DesiredChanged(patch)] if patch.version == TwinVersion(8) && patch.patch.len() == 2
    ));
    assert!(matches!(
        change(9, r#"{"$version":9}"#)[..],
        [Event::DesiredChanged(_)]
    ));
    assert!(matches!(
        change(11, r#"{"$version":11}"#)[..],
        [Event::DesiredStale, Event::DesiredChanged(_)]
    ));
    assert!(matches!(change(12, "garbage")[..], [Event::DesiredStale]));
}
