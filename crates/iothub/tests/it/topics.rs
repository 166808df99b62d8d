use proptest::{option, prelude::*};
use tombolo_iothub::{
    Identity,
    topic::{Filter, ToDevice, ToHub, fits},
    twin::TwinVersion,
};

use crate::{arbitrary, golden};

fn says_up(topic: &ToHub) -> String {
    match topic {
        ToHub::Telemetry { device, .. } => format!("telemetry {device}"),
        ToHub::TwinGet { rid } => format!("twin get {}", rid.as_str()),
        ToHub::TwinPatchReported { rid } => format!("patch reported {}", rid.as_str()),
        ToHub::MethodResponse { status, rid } => {
            format!("method response {status} {}", rid.as_str())
        }
    }
}

fn says_down(topic: &ToDevice) -> String {
    let version = |version: &Option<TwinVersion>| {
        version.map_or_else(String::new, |v| format!(" version {}", v.0))
    };
    match topic {
        ToDevice::CloudMessage { device, .. } => format!("cloud message {device}"),
        ToDevice::TwinResponse {
            status,
            rid,
            version: v,
        } => {
            format!("twin response {status} {}{}", rid.as_str(), version(v))
        }
        ToDevice::DesiredPatch { version: v } => format!("desired patch{}", version(v)),
        ToDevice::MethodRequest { name, rid } => format!("method request {name} {}", rid.as_str()),
    }
}

#[test]
fn topics_are_those_that_were_captured() {
    for [direction, topic, says] in golden::table("topics.txt") {
        let (said, written) = match direction.as_str() {
            "up" => ToHub::parse(&topic)
                .map(|t| (says_up(&t), t.encode()))
                .unwrap(),
            _ => ToDevice::parse(&topic)
                .map(|t| (says_down(&t), t.encode()))
                .unwrap(),
        };
        assert_eq!(said, says);
        assert_eq!(written, topic);
    }
}

#[test]
fn filters_are_those_that_the_hub_allows() {
    let hub = || "test-hub.azure-devices.net".parse().unwrap();
    let device = Identity::device(hub(), "dev1".parse().unwrap());
    let module = Identity::module(hub(), "dev1".parse().unwrap(), "mod1".parse().unwrap());
    for [who, filter, says] in golden::table("filters.txt") {
        let identity = if who == "device" { &device } else { &module };
        let parsed = Filter::parse(&filter, identity);
        let said = match &parsed {
            Ok(Filter::CloudMessages) => "cloud messages".to_owned(),
            Ok(Filter::TwinResponses) => "twin responses".to_owned(),
            Ok(Filter::DesiredPatches) => "desired patches".to_owned(),
            Ok(Filter::Methods) => "methods".to_owned(),
            Ok(Filter::Method(name)) => format!("method {name}"),
            Ok(Filter::ModuleInputs) => "module inputs".to_owned(),
            Err(_) => "refused".to_owned(),
        };
        assert_eq!(said, says, "{who} {filter}");
        if let Ok(parsed) = parsed {
            assert_eq!(
                Filter::parse(&parsed.encode(identity), identity),
                Ok(parsed),
                "{filter}"
            );
        }
    }
}

#[test]
fn a_filter_matches_what_it_names() {
    let method: ToDevice = ToDevice::parse("$iothub/methods/POST/reboot/?$rid=1").unwrap();
    let one = |name: &str| Filter::Method(name.parse().unwrap());
    assert!(Filter::Methods.matches(&method) && one("reboot").matches(&method));
    assert!(!one("other").matches(&method) && !Filter::TwinResponses.matches(&method));
}

#[test]
fn a_topic_that_the_hub_does_not_know_is_refused() {
    for topic in [
        "",
        "/",
        "devices",
        "devices/",
        "devices/dev1",
        "devices/dev1/messages",
        "devices/dev1/messages/eventsx",
        "devices/dev1/messages/devicebound/",
        "devices//messages/events/",
        "devices/a b/messages/events/",
        "devices/dev1/modules//messages/events/",
        "devices/dev1/modules/m/inputs/x",
        "$iothub/twin/GET/",
        "$iothub/twin/GET/?rid=1",
        "$iothub/twin/GET/?$rid=",
        "$iothub/twin/PATCH/properties/desired/?$rid=1",
        "$iothub/methods/res/?$rid=1",
        "$iothub/methods/res/ok/?$rid=1",
        "$iothub/methods/res/99999999999/?$rid=1",
        "$dps/registrations/PUT/iotdps-register/?$rid=1",
    ] {
        assert!(ToHub::parse(topic).is_err(), "{topic}");
    }
    for topic in [
        "",
        "devices/dev1/messages/events/",
        "$iothub/twin/res/x/?$rid=1",
        "$iothub/methods/POST/?$rid=1",
    ] {
        assert!(ToDevice::parse(topic).is_err(), "{topic}");
    }
}

#[test]
fn a_topic_fits_up_to_65535_bytes() {
    assert!(fits(&"x".repeat(65_534)) && fits(&"x".repeat(65_535)) && !fits(&"x".repeat(65_536)));
}

fn up() -> impl Strategy<Value = ToHub> {
    let rid = arbitrary::request_id;
    prop_oneof![
        (
            arbitrary::device_id(),
            option::of(arbitrary::module_id()),
            arbitrary::bag()
        )
            .prop_map(|(device, module, bag)| ToHub::Telemetry {
                device,
                module,
                bag
            }),
        rid().prop_map(|rid| ToHub::TwinGet { rid }),
        rid().prop_map(|rid| ToHub::TwinPatchReported { rid }),
        (any::<i32>(), rid()).prop_map(|(status, rid)| ToHub::MethodResponse { status, rid }),
    ]
}

fn down() -> impl Strategy<Value = ToDevice> {
    let rid = arbitrary::request_id;
    let version = || option::of(any::<u64>().prop_map(TwinVersion));
    prop_oneof![
        (arbitrary::device_id(), arbitrary::bag())
            .prop_map(|(device, bag)| ToDevice::CloudMessage { device, bag }),
        (any::<u16>(), rid(), version()).prop_map(|(status, rid, version)| {
            ToDevice::TwinResponse {
                status,
                rid,
                version,
            }
        }),
        version().prop_map(|version| ToDevice::DesiredPatch { version }),
        (arbitrary::method_name(), rid())
            .prop_map(|(name, rid)| ToDevice::MethodRequest { name, rid }),
    ]
}

/// Text that comes close to a topic.
fn almost_a_topic() -> impl Strategy<Value = String> {
    "(devices/|\\$iothub/(twin|methods)/)[a-zA-Z0-9/?$&=%.+#-]{0,60}"
}

proptest! {
    #[test]
    fn every_topic_up_comes_back(topic in up()) {
        prop_assert_eq!(ToHub::parse(&topic.encode()), Ok(topic));
    }

    #[test]
    fn every_topic_down_comes_back(topic in down()) {
        prop_assert_eq!(ToDevice::parse(&topic.encode()), Ok(topic));
    }

    #[test]
    fn a_topic_never_has_a_wildcard(up in up(), down in down()) {
        prop_assert!(!up.encode().contains(['+', '#']));
        prop_assert!(!down.encode().contains(['+', '#']));
    }

    #[test]
    fn parsing_never_panics(text in prop_oneof![any::<String>(), almost_a_topic()], identity in arbitrary::identity()) {
        let _ = ToHub::parse(&text);
        let _ = ToDevice::parse(&text);
        let _ = Filter::parse(&text, &identity);
    }
}
