//! The topics of the service ("Communicate with DPS using the MQTT protocol").

/// What a device publishes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// Echoed in the answer, as it was written: a decimal number or a UUID in Microsoft's SDKs.
    pub(super) rid: &'a str,
    pub(super) kind: Kind<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Register,
    Status { operation: &'a str },
}

/// Why a topic is none of the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTopic {
    /// Another path.
    #[error("the topic is not one of the provisioning service")]
    Path,
    /// A request without it, or with a longer one than 256 bytes, cannot be answered; the protocol gateway throws, so the
    /// connection ends.
    #[error("the topic has no $rid that can be answered to")]
    Rid,
    /// A status is asked for without saying of what.
    #[error("the topic has no operationId")]
    Operation,
}

impl<'a> Request<'a> {
    pub(super) fn parse(topic: &'a str) -> Result<Self, UnknownTopic> {
        let (path, query) = topic.split_once("/?").ok_or(UnknownTopic::Path)?;
        let item = |name: &str| {
            let mut items = query.split('&').filter_map(|item| item.split_once('='));
            let found = items.find(|(key, _)| *key == name);
            found
                .map(|(_, value)| value)
                .filter(|value| !value.is_empty())
        };
        // It becomes part of the answer's topic, which must stay one.
        let fits = |rid: &&str| rid.len() <= RID && !rid.contains(['+', '#']);
        let rid = || item("$rid").filter(fits).ok_or(UnknownTopic::Rid);
        match path {
            "$dps/registrations/PUT/iotdps-register" => Ok(Self {
                rid: rid()?,
                kind: Kind::Register,
            }),
            "$dps/registrations/GET/iotdps-get-operationstatus" => Ok(Self {
                rid: rid()?,
                kind: Kind::Status {
                    operation: item("operationId").ok_or(UnknownTopic::Operation)?,
                },
            }),
            _ => Err(UnknownTopic::Path),
        }
    }
}

/// The topic of an answer. `retry-after` is an item of its own, which Java's SDK insists on.
pub(super) fn answer(status: u16, rid: &str, retry_after_s: Option<u32>) -> String {
    let topic = format!("$dps/registrations/res/{status}/?$rid={rid}");
    match retry_after_s {
        None => topic,
        Some(seconds) => format!("{topic}&retry-after={seconds}"),
    }
}

/// The one filter that there is to subscribe.
pub(super) const ANSWERS: &str = "$dps/registrations/res/#";
/// Bytes of a `$rid`: several times the length of a UUID, the longest that an SDK sends.
const RID: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_topics_of_the_documentation() {
        assert_eq!(
            Request::parse("$dps/registrations/PUT/iotdps-register/?$rid=1"),
            Ok(Request {
                rid: "1",
                kind: Kind::Register
            })
        );
        let topic = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=0f2d-1&operationId=5.71cf7e385566aa10.4469ed4c-dc19-4af8-8b36-9ef6396ac1b3";
        assert_eq!(
            Request::parse(topic),
            Ok(Request {
                rid: "0f2d-1",
                kind: Kind::Status {
                    operation: "5.71cf7e385566aa10.4469ed4c-dc19-4af8-8b36-9ef6396ac1b3"
                }
            })
        );
    }

    #[test]
    fn refuses_what_cannot_be_answered() {
        for (topic, why) in [
            (
                "$dps/registrations/PUT/iotdps-register/",
                UnknownTopic::Path,
            ),
            (
                "$dps/registrations/PUT/iotdps-register/?",
                UnknownTopic::Rid,
            ),
            (
                "$dps/registrations/PUT/iotdps-register/?$rid=",
                UnknownTopic::Rid,
            ),
            (
                "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1",
                UnknownTopic::Operation,
            ),
            (
                "$dps/registrations/GET/iotdps-register/?$rid=1",
                UnknownTopic::Path,
            ),
            (
                "$dps/registrations/PUT/iotdps-register/?$rid=#",
                UnknownTopic::Rid,
            ),
            ("devices/reg-1/messages/events/", UnknownTopic::Path),
        ] {
            assert_eq!(Request::parse(topic), Err(why), "{topic}");
        }
    }

    #[test]
    fn a_rid_has_256_bytes_at_most() {
        let parsed = |length| {
            let topic = format!(
                "$dps/registrations/PUT/iotdps-register/?$rid={}",
                "1".repeat(length)
            );
            Request::parse(&topic).map(|request| request.rid.len())
        };
        assert_eq!(parsed(255), Ok(255));
        assert_eq!(parsed(256), Ok(256));
        assert_eq!(parsed(257), Err(UnknownTopic::Rid));
    }

    #[test]
    fn writes_the_topics_of_the_documentation() {
        assert_eq!(
            answer(202, "1", Some(3)),
            "$dps/registrations/res/202/?$rid=1&retry-after=3"
        );
        assert_eq!(answer(200, "2", None), "$dps/registrations/res/200/?$rid=2");
    }
}
