//! The faults by example, for people who write rules.

use serde_json::{Value, json};

use super::Fault;

/// One kind of fault, as it is shown to people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultKind {
    /// `fault` of a rule, in JSON.
    pub example: &'static str,
    /// What it does.
    pub does: &'static str,
}

impl Fault {
    /// Every kind there is.
    pub const KINDS: [FaultKind; 23] = [
        kind(
            r#"{"kind":"drop-connection"}"#,
            "closes the connections that are up, once",
        ),
        kind(
            r#"{"kind":"freeze-connection","millis":60000}"#,
            "neither reads from nor writes to the connections that are up, TCP stays; an hour without millis",
        ),
        kind(
            r#"{"kind":"expire-tokens"}"#,
            "takes the tokens used so far for expired, until ones that end later are signed",
        ),
        kind(
            r#"{"kind":"jump-clock","by_millis":-600000}"#,
            "sets the hub's wall clock forward or back, once",
        ),
        kind(
            r#"{"kind":"unreachable"}"#,
            "closes connections, and ends CONNECT and HTTPS requests without an answer",
        ),
        kind(
            r#"{"kind":"fail-over"}"#,
            "moves the hub to its other address, closing its connections, or back; once",
        ),
        kind(
            r#"{"kind":"refuse-connect","code":3}"#,
            "answers CONNECT with this code, 1 to 5",
        ),
        kind(
            r#"{"kind":"lose-session"}"#,
            "has forgotten session and subscriptions at CONNECT",
        ),
        kind(
            r#"{"kind":"hold-messages","millis":2000}"#,
            "sends queued cloud-to-device messages so long after CONNACK",
        ),
        kind(
            r#"{"kind":"ignore-unsubscribe"}"#,
            "acknowledges UNSUBSCRIBE and keeps the subscription",
        ),
        kind(
            r#"{"kind":"swallow-puback"}"#,
            "takes a PUBLISH and never acknowledges it",
        ),
        kind(
            r#"{"kind":"delay-puback","millis":500}"#,
            "acknowledges a PUBLISH late",
        ),
        kind(
            r#"{"kind":"duplicate-puback"}"#,
            "acknowledges a PUBLISH twice",
        ),
        kind(
            r#"{"kind":"close-on-payload","contains":{"text":"poison"}}"#,
            "closes the connection at a payload with this text, or these bytes as base64, in it",
        ),
        kind(
            r#"{"kind":"throttle","millis":3000}"#,
            "answers 429 after so long; telemetry over MQTT is not acknowledged and its connection closed",
        ),
        kind(
            r#"{"kind":"ignore-twin-requests"}"#,
            "never answers a twin request over MQTT",
        ),
        kind(
            r#"{"kind":"fail-twin-requests","status":500}"#,
            "answers a twin request over MQTT with this status, 400 to 599",
        ),
        kind(
            r#"{"kind":"delay-twin-requests","millis":500}"#,
            "answers a twin request over MQTT late",
        ),
        kind(
            r#"{"kind":"swallow-method-answer"}"#,
            "loses the device's answer to a direct method",
        ),
        kind(
            r#"{"kind":"delay-method-answer","millis":500}"#,
            "hands the device's answer to a direct method to its caller late",
        ),
        kind(
            r#"{"kind":"fail-requests","api":"device","status":500}"#,
            "answers HTTPS requests with this status; api is device or service, both without it",
        ),
        kind(
            r#"{"kind":"delay-requests","api":"service","millis":500}"#,
            "deals with HTTPS requests late",
        ),
        kind(
            r#"{"kind":"drop-requests","api":"device"}"#,
            "closes the connection of HTTPS requests without an answer",
        ),
    ];

    /// All that there is to know for writing a rule, in JSON.
    #[must_use]
    pub fn help() -> Value {
        let kinds = Self::KINDS.map(|kind| {
            let example: Value =
                serde_json::from_str(kind.example).expect("a test reads every example");
            json!({ "fault": example, "does": kind.does })
        });
        json!({
            "rule": {
                "fault": "one of the kinds below; the only member that must be there",
                "device": "only this device and its modules",
                "module": "only the modules of this name",
                "times": "how many times, at least 1; without end if absent",
                "probability": "over 0, at most 1; always if absent",
                "after_millis": "begins so long after the request",
                "for_millis": "ends so long after its beginning",
            },
            "kinds": kinds,
        })
    }
}

const fn kind(example: &'static str, does: &'static str) -> FaultKind {
    FaultKind { example, does }
}

#[cfg(test)]
mod tests {
    use super::{super::rule, *};

    #[test]
    fn every_kind_is_shown_by_an_example_that_is_right() {
        let mut shown: Vec<String> = Fault::KINDS
            .iter()
            .map(|kind| {
                let fault: Fault = serde_json::from_str(kind.example).unwrap();
                let value = serde_json::to_value(&fault).unwrap();
                assert_eq!(value, serde_json::from_str::<Value>(kind.example).unwrap());
                value["kind"].as_str().unwrap().to_owned()
            })
            .collect();
        // The library names every kind when it refuses one.
        let refusal = serde_json::from_value::<Fault>(json!({"kind": ""})).unwrap_err();
        let refusal = refusal.to_string();
        let mut there: Vec<_> = refusal.split('`').skip(3).step_by(2).collect();
        shown.sort();
        there.sort_unstable();
        assert_eq!(shown, there, "{refusal}");
        assert!(Fault::help()["kinds"].as_array().unwrap().len() == Fault::KINDS.len());
    }

    #[test]
    fn a_member_that_a_fault_does_not_have_is_refused() {
        for fault in [
            json!({"kind": "swallow-puback", "times": 3}),
            json!({"kind": "delay-puback", "milis": 3}),
            json!({"kind": "delay-puback"}),
        ] {
            assert!(
                serde_json::from_value::<Fault>(fault.clone()).is_err(),
                "{fault}"
            );
        }
    }

    #[test]
    fn a_rule_reads_back_as_it_was_written() {
        let rule = json!({
            "device": "dev1", "module": "mod1", "times": 3, "probability": 0.25, "after_millis": 5, "for_millis": 7,
            "fault": {"kind": "close-on-payload", "contains": {"base64": "AP8="}},
        });
        let read: rule::FaultRule = serde_json::from_value(rule.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), rule);
    }
}
