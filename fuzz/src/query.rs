//! Queries of the service.

use std::time::Instant;

use emulator::hub::{Config, DeviceSpec, Hub, ModuleSpec, Now, Policy, Random, TwinChange};
use iothub::{DeviceId, Timestamp};
use serde_json::{Map, json};

/// A query, and on the next line a continuation token. Whatever they say, they are answered or refused. Read page by page the
/// rows are those of one page, and a token of one query is none of another.
pub fn query(bytes: &[u8]) {
    thread_local!(static HUB: Hub = hub());
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let (text, token) = text.split_once('\n').unwrap_or((text, ""));
    HUB.with(|hub| ask(hub, text, token));
}

fn ask(hub: &Hub, text: &str, token: &str) {
    let _ = hub.query(text, 1000, Some(token));
    let Ok(whole) = hub.query(text, 1000, None) else {
        return;
    };
    let (mut items, mut continuation) = (Vec::new(), None);
    loop {
        let page = hub
            .query(text, 1, continuation.as_deref())
            .expect("what is answered whole is answered in pages");
        assert!(page.items.len() <= 1);
        items.extend(page.items);
        let Some(token) = page.continuation else {
            break;
        };
        assert!(hub.query(&format!("{text} "), 1, Some(&token)).is_err());
        continuation = Some(token);
    }
    assert_eq!(items, whole.items);
}

fn hub() -> Hub {
    let mut random = Random::seeded(7);
    let name = "test-hub.azure-devices.net".parse().expect("a host name");
    let mut hub = Hub::new(Config::new(name, Policy::defaults(&mut random)), random);
    let now = Now {
        at: Instant::now(),
        utc: Timestamp::from_unix_seconds(1_735_689_600),
    };
    for (id, tags) in [
        ("a", json!({"x": 1, "s": "north", "o": {"p": true}})),
        ("b", json!({"x": 2.5, "s": "south", "n": null})),
        ("c", json!({"x": "1"})),
    ] {
        let device: DeviceId = id.parse().expect("a device id");
        let module = "m".parse().expect("a module id");
        hub.create_device(&device, DeviceSpec::default(), now)
            .expect("there is no such device yet");
        hub.create_module(&device, &module, ModuleSpec::default(), now)
            .expect("there is no such module yet");
        let identity = hub.identity(device, None);
        let change = TwinChange::Merge {
            tags: tags.as_object().cloned(),
            desired: Some(Map::from_iter([("x".to_owned(), tags["x"].clone())])),
        };
        hub.update_twin(&identity, change, None, now)
            .expect("a twin may hold this");
    }
    hub
}
