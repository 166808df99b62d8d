//! What operators do with enrollments and registrations.

use std::ops::Bound;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Code, Error, Group, GroupId, Individual, Now, RegistrationId, Service,
    enrollment::{Enrollment, Record, json as document},
};
use crate::hub::IfMatch;

/// Some of many, and what to ask for the next ones with.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Value>,
    pub(crate) continuation: Option<String>,
}

/// What a bulk operation does with each item.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum BulkMode {
    Create,
    Update,
    #[serde(rename = "updateIfMatchETag")]
    UpdateIfMatchEtag,
    Delete,
}

impl Service {
    /// Creates an individual enrollment, or replaces it.
    ///
    /// # Errors
    ///
    /// It breaks a rule, or the service is full.
    pub fn enroll(
        &mut self,
        id: &RegistrationId,
        enrollment: Individual,
        now: Now,
    ) -> Result<(), Error> {
        self.keep(id, enrollment, now)
    }

    /// Creates an enrollment group, or replaces it.
    ///
    /// # Errors
    ///
    /// It breaks a rule, or the service is full.
    pub fn enroll_group(&mut self, id: &GroupId, group: Group, now: Now) -> Result<(), Error> {
        self.keep(id, group, now)
    }

    /// An enrollment group.
    ///
    /// # Errors
    ///
    /// There is no such group.
    pub fn group(&self, id: &GroupId) -> Result<&Group, Error> {
        Ok(&self.find::<Group>(id)?.1.enrollment)
    }

    /// Creates an enrollment, or replaces it: `PUT`. With a condition it must be there.
    ///
    /// # Errors
    ///
    /// The body breaks a rule, the condition does not hold, or the service is full.
    pub(crate) fn write<E: Enrollment>(
        &mut self,
        id: &E::Id,
        body: Value,
        if_match: Option<&IfMatch>,
        now: Now,
    ) -> Result<Value, Error> {
        let enrollment: E = document::read(body, id, &mut self.random)?;
        if if_match.is_some() {
            check_etag(if_match, &self.find::<E>(id)?.1.etag)?;
        }
        self.keep(id, enrollment, now)?;
        let (id, record) = self.find::<E>(id)?;
        Ok(record.to_json_with_keys(id))
    }

    /// # Errors
    ///
    /// There is no such enrollment.
    pub(crate) fn read<E: Enrollment>(&self, id: &E::Id) -> Result<Value, Error> {
        let (id, record) = self.find::<E>(id)?;
        Ok(self.show(id, record))
    }

    /// The attestation with its keys.
    ///
    /// # Errors
    ///
    /// There is no such enrollment.
    pub(crate) fn mechanism<E: Enrollment>(&self, id: &E::Id) -> Result<Value, Error> {
        Ok(self.find::<E>(id)?.1.mechanism())
    }

    /// Deletes an enrollment with its registrations; the devices stay at their hubs.
    ///
    /// # Errors
    ///
    /// There is no such enrollment, or its entity tag is another one.
    pub(crate) fn remove<E: Enrollment>(
        &mut self,
        id: &E::Id,
        if_match: Option<&IfMatch>,
    ) -> Result<(), Error> {
        check_etag(if_match, &self.find::<E>(id)?.1.etag)?;
        E::all_mut(self).remove(id);
        self.registrations
            .retain(|_, registration| !E::is_origin_of(id, registration));
        Ok(())
    }

    /// All enrollments of a kind, by pages.
    ///
    /// # Errors
    ///
    /// The token is not one of this query.
    pub(crate) fn list<E: Enrollment>(
        &self,
        most: usize,
        continuation: Option<&str>,
    ) -> Result<Page, Error> {
        let after = continuation
            .map(|token| resume::<E::Id>(E::LIST, token))
            .transpose()?;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = E::all(self).range((start, Bound::Unbounded));
        Ok(page(E::LIST, most, rest, |id, record| {
            self.show(id, record)
        }))
    }

    /// The registrations of a group, by pages.
    ///
    /// # Errors
    ///
    /// There is no such group, or the token is not one of this query.
    pub(crate) fn list_registrations(
        &self,
        group: &GroupId,
        most: usize,
        continuation: Option<&str>,
    ) -> Result<Page, Error> {
        self.find::<Group>(group)?;
        let query = format!("registrations/{group}");
        let after = continuation
            .map(|token| resume::<RegistrationId>(&query, token))
            .transpose()?;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self
            .registrations
            .range((start, Bound::Unbounded))
            .filter(|(_, registration)| Group::is_origin_of(group, registration));
        Ok(page(&query, most, rest, |_, registration| {
            registration.to_json()
        }))
    }

    /// Does the same with several enrollments, one after the other; one that fails does not stop the others.
    ///
    /// # Errors
    ///
    /// The body is no bulk operation, or one of too many items.
    pub(crate) fn bulk<E: Enrollment>(&mut self, body: &Value, now: Now) -> Result<Value, Error> {
        let mode = body.get("mode").cloned().unwrap_or_default();
        let mode: BulkMode = serde_json::from_value(mode)
            .map_err(|_| Error::invalid("mode is create, update, updateIfMatchETag or delete."))?;
        let items = body.get(E::LIST).and_then(Value::as_array);
        let items = items.ok_or_else(|| Error::invalid(format!("{} is missing.", E::LIST)))?;
        if items.len() > BULK {
            return Err(Error::invalid(format!(
                "A bulk operation has at most {BULK} items."
            )));
        }
        let mut errors = Vec::new();
        for item in items {
            if let Err(error) = self.bulk_item::<E>(mode, item, now) {
                errors.push(json!({
                    E::ID: item.get(E::ID),
                    "errorCode": error.code.number(),
                    "errorStatus": format!("{}: {}", error.code.text(), error.message),
                }));
            }
        }
        Ok(json!({ "isSuccessful": errors.is_empty(), "errors": errors }))
    }

    fn bulk_item<E: Enrollment>(
        &mut self,
        mode: BulkMode,
        item: &Value,
        now: Now,
    ) -> Result<(), Error> {
        let name = item.get(E::ID).and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::invalid(format!("{} is missing.", E::ID)))?;
        let id: E::Id = name
            .parse()
            .map_err(|error| Error::invalid(format!("{}: {error}.", E::ID)))?;
        match mode {
            BulkMode::Create if E::all(self).contains_key(&id) => {
                Err(Error::new(Code::Conflict, format!("{id} exists.")))
            }
            BulkMode::Create => self.write::<E>(&id, item.clone(), None, now).map(drop),
            BulkMode::Update => self
                .write::<E>(&id, item.clone(), Some(&IfMatch::Any), now)
                .map(drop),
            BulkMode::UpdateIfMatchEtag => {
                let etag = item.get("etag").and_then(Value::as_str);
                let etag = etag.ok_or_else(|| Error::invalid("etag is missing."))?;
                let if_match = IfMatch::parse(etag);
                self.write::<E>(&id, item.clone(), Some(&if_match), now)
                    .map(drop)
            }
            BulkMode::Delete => self.remove::<E>(&id, None),
        }
    }

    fn keep<E: Enrollment>(&mut self, id: &E::Id, enrollment: E, now: Now) -> Result<(), Error> {
        enrollment.terms().check(&self.config.hubs)?;
        let etag = self.random.guid();
        let most = E::most(&self.config.limits);
        let all = E::all_mut(self);
        if let Some(record) = all.get_mut(id) {
            record.replace(enrollment, etag, now.utc);
        } else if all.len() >= most {
            let message = format!("The service has {most} {}.", E::LIST);
            return Err(Error::new(Code::Throttled, message));
        } else {
            all.insert(id.clone(), Record::new(enrollment, etag, now.utc));
        }
        Ok(())
    }

    /// An enrollment, and its id as it was written first.
    fn find<E: Enrollment>(&self, id: &E::Id) -> Result<(&E::Id, &Record<E>), Error> {
        let found = E::all(self).get_key_value(id);
        found.ok_or_else(|| E::not_found(id))
    }

    /// The document; an individual enrollment shows its registration too.
    fn show<E: Enrollment>(&self, id: &E::Id, record: &Record<E>) -> Value {
        let mut document = record.to_json(id);
        if let Some(registration) = E::registration(self, id) {
            document["registrationState"] = registration.to_json();
        }
        document
    }
}

/// # Errors
///
/// There is a condition, and it does not hold.
pub(super) fn check_etag(if_match: Option<&IfMatch>, etag: &str) -> Result<(), Error> {
    match if_match {
        Some(IfMatch::Etag(wanted)) if wanted != etag => {
            Err(Error::new(Code::PreconditionFailed, "Precondition failed."))
        }
        Some(IfMatch::Etag(_) | IfMatch::Any) | None => Ok(()),
    }
}

/// What the service's queries can say here: all of it. The real service takes conditions as well; they are refused by name.
///
/// # Errors
///
/// It says something else.
pub(crate) fn check_query(query: &str) -> Result<(), Error> {
    let query = query.to_ascii_lowercase();
    let words: Vec<_> = query.split_ascii_whitespace().collect();
    match words.as_slice() {
        [] | ["*"] | ["select", "*"] | ["select", "*", "from", _] => Ok(()),
        _ => Err(Error::invalid(
            "The emulator's provisioning service takes the query SELECT * FROM enrollments (or enrollmentGroups, or \
             registrations), without conditions.",
        )),
    }
}

fn page<'a, K: ToString + 'a, V: 'a>(
    query: &str,
    most: usize,
    mut rest: impl Iterator<Item = (&'a K, &'a V)>,
    show: impl Fn(&K, &V) -> Value,
) -> Page {
    let mut last = None;
    let items = rest.by_ref().take(most).map(|(id, value)| {
        last = Some(id);
        show(id, value)
    });
    let items: Vec<_> = items.collect();
    let last = last.filter(|_| rest.next().is_some());
    Page {
        items,
        continuation: last.map(|id| URL_SAFE_NO_PAD.encode(format!("{query}\n{}", id.to_string()))),
    }
}

/// The id that a page ended with.
fn resume<Id: std::str::FromStr>(query: &str, token: &str) -> Result<Id, Error> {
    let id = URL_SAFE_NO_PAD.decode(token).ok().and_then(|text| {
        let text = String::from_utf8(text).ok()?;
        let (of, id) = text.split_once('\n')?;
        (of == query).then(|| id.parse().ok())?
    });
    id.ok_or_else(|| Error::invalid("x-ms-continuation is not a token of this query."))
}

/// Items of a bulk operation (the service's REST specification).
const BULK: usize = 10;
