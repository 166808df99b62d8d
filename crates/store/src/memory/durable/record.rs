//! What the log's records say.
//!
//! A record is a kind and its fields. It says all that there is to say of one thing, so that it can be written again
//! alone when its segment is cleaned; only [`Record::Settled`], [`Record::Changed`], [`Record::KeyForgotten`] and
//! [`Record::Discarded`] end or change what an older record began.

use std::sync::Arc;

use bytes::Bytes;
use iothub::{CloudMessage, Identity, Timestamp};

use super::{
    super::{mailbox::DeadReason, token::Token},
    codec::{Decoder, Encoder},
};
use crate::{
    Answer, ArrivalId, ConnectionEpoch, EntryId, Fingerprint, KeyId, KeyState, Lane, Outcome,
    SealedCredential, Settlement, SubmissionId, Work,
};

/// One record; `'a` is that of the bytes that it was read from.
pub(super) enum Record<'a> {
    /// An entry of the outbox waits.
    Stored(Stored<'a>),
    /// An entry is settled; this is its receipt.
    Settled(Settled),
    /// An entry has failed for good.
    Dead(Stored<'a>, Outcome, Timestamp),
    /// A key has begun, or something is noted of it, or it is answered.
    Key(Key),
    /// A key is forgotten.
    KeyForgotten(Identity, KeyId),
    /// A message of the inbox is offered.
    Arrived(Arrived),
    /// A message was abandoned, or is gone.
    Changed(Changed),
    /// A message is a dead letter.
    DeadMessage(Arrived, DeadReason, Timestamp),
    /// An entry that has failed for good is forgotten.
    Discarded(Identity, EntryId),
    /// What opens the session of a device that is passed through, in the place of the one before.
    /// Its number says whether it is newer than another one.
    Credential(Identity, u64, SealedCredential),
    /// Credentials up to this number are forgotten.
    CredentialForgotten(Identity, u64),
    /// Nothing: its being flushed was what somebody waited for.
    Barrier,
}

pub(super) struct Stored<'a> {
    pub(super) identity: Identity,
    pub(super) entry: EntryId,
    pub(super) submission: SubmissionId,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) accepted_at: Timestamp,
    pub(super) lane: Lane,
    pub(super) size: u32,
    /// What [`Encoder::work`] made.
    pub(super) work: &'a [u8],
}

pub(super) struct Settled {
    pub(super) identity: Identity,
    pub(super) submission: SubmissionId,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) accepted_at: Timestamp,
    pub(super) at: Timestamp,
    pub(super) outcome: Outcome,
}

pub(super) struct Key {
    pub(super) identity: Identity,
    pub(super) id: KeyId,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) began_at: Timestamp,
    pub(super) state: KeyState,
}

pub(super) struct Arrived {
    pub(super) identity: Identity,
    pub(super) sequence: u64,
    pub(super) arrival: ArrivalId,
    pub(super) token: Token,
    pub(super) arrived_at: Timestamp,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) delivery_count: u32,
    pub(super) message: Arc<CloudMessage>,
}

pub(super) struct Changed {
    pub(super) identity: Identity,
    pub(super) sequence: u64,
    pub(super) arrival: ArrivalId,
    pub(super) token: Token,
    pub(super) settlement: Settlement,
    pub(super) delivery_count: u32,
    pub(super) is_gone: bool,
    pub(super) died: Option<DeadReason>,
    pub(super) at: Timestamp,
}

/// The bytes of some work, if it is of a kind that can be stored.
pub(super) fn encode_work(work: &Work) -> Option<Vec<u8>> {
    let mut to = Encoder::with_room_for(work.size());
    to.work(work).then(|| to.finish())
}

/// The work of these bytes.
fn decode_work(bytes: &[u8]) -> Option<Work> {
    let mut from = Decoder::new(bytes);
    from.work().filter(|_| from.is_at_end())
}

impl Record<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::with_room_for(self.usual_bytes());
        match self {
            Self::Barrier => {}
            Self::Stored(stored) => {
                to.u8(STORED);
                stored.encode(&mut to);
            }
            Self::Settled(settled) => {
                to.u8(SETTLED)
                    .identity(&settled.identity)
                    .u128(settled.submission.0)
                    .fingerprint(settled.fingerprint)
                    .time(settled.accepted_at)
                    .time(settled.at)
                    .outcome(&settled.outcome);
            }
            Self::Dead(stored, outcome, at) => {
                to.u8(DEAD).outcome(outcome).time(*at);
                stored.encode(&mut to);
            }
            Self::Key(key) => {
                to.u8(KEY)
                    .identity(&key.identity)
                    .u128(key.id.0)
                    .fingerprint(key.fingerprint)
                    .time(key.began_at);
                match &key.state {
                    KeyState::Begun | KeyState::Open(None) => to.u8(0),
                    KeyState::Answered(answer) => to.u8(1).bytes(answer.as_bytes()),
                    KeyState::Open(Some(note)) => to.u8(2).bytes(note.as_bytes()),
                };
            }
            Self::KeyForgotten(identity, id) => {
                to.u8(KEY_FORGOTTEN).identity(identity).u128(id.0);
            }
            Self::Arrived(arrived) => {
                to.u8(ARRIVED);
                arrived.encode(&mut to);
            }
            Self::Changed(changed) => {
                to.u8(CHANGED)
                    .identity(&changed.identity)
                    .number(changed.sequence)
                    .number(changed.arrival.connection.0)
                    .number(changed.arrival.number)
                    .u128(changed.token.bits())
                    .u8(settlement_code(changed.settlement))
                    .number(changed.delivery_count)
                    .u8(changed.is_gone.into())
                    .option(changed.died, |to, died| to.u8(died.code()))
                    .time(changed.at);
            }
            Self::DeadMessage(arrived, reason, at) => {
                to.u8(DEAD_MESSAGE).u8(reason.code()).time(*at);
                arrived.encode(&mut to);
            }
            Self::Discarded(identity, entry) => {
                to.u8(DISCARDED).identity(identity).number(entry.0);
            }
            Self::Credential(identity, number, credential) => {
                to.u8(CREDENTIAL)
                    .identity(identity)
                    .number(*number)
                    .time(credential.expires_at())
                    .rest(credential.sealed());
            }
            Self::CredentialForgotten(identity, number) => {
                to.u8(CREDENTIAL_FORGOTTEN)
                    .identity(identity)
                    .number(*number);
            }
        }
        to.finish()
    }
}

impl Record<'_> {
    /// About as many bytes as it takes, nearly always enough.
    fn usual_bytes(&self) -> usize {
        match self {
            Self::Barrier => 0,
            Self::Stored(stored) | Self::Dead(stored, ..) => HEAD + stored.work.len(),
            Self::Key(_) => HEAD + Answer::MAX_BYTES,
            Self::Arrived(arrived) | Self::DeadMessage(arrived, ..) => {
                HEAD + arrived.message.payload.len()
            }
            Self::Credential(.., credential) => HEAD + credential.sealed().len(),
            Self::Settled(_)
            | Self::KeyForgotten(..)
            | Self::Changed(_)
            | Self::Discarded(..)
            | Self::CredentialForgotten(..) => HEAD,
        }
    }
}

/// What an entry or a message says.
#[derive(Clone, Debug)]
pub enum Said {
    /// What is to be done at the hub.
    Work(Work),
    /// A cloud-to-device message.
    Message(Arc<CloudMessage>),
}

/// What the entry or the message of this record says; `None` if it is about neither, or cannot be read.
pub(crate) fn said(record: &[u8]) -> Option<Said> {
    match Record::decode(record)? {
        Record::Stored(stored) | Record::Dead(stored, ..) => {
            decode_work(stored.work).map(Said::Work)
        }
        Record::Arrived(arrived) | Record::DeadMessage(arrived, ..) => {
            Some(Said::Message(arrived.message))
        }
        Record::Settled(_)
        | Record::Key(_)
        | Record::KeyForgotten(..)
        | Record::Changed(_)
        | Record::Discarded(..)
        | Record::Credential(..)
        | Record::CredentialForgotten(..)
        | Record::Barrier => None,
    }
}

impl Said {
    pub(crate) fn into_work(self) -> Option<Work> {
        match self {
            Self::Work(work) => Some(work),
            Self::Message(_) => None,
        }
    }

    pub(crate) fn into_message(self) -> Option<Arc<CloudMessage>> {
        match self {
            Self::Message(message) => Some(message),
            Self::Work(_) => None,
        }
    }
}

impl<'a> Record<'a> {
    /// The record of these bytes; `None` if they are none that this program knows.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut from = Decoder::new(bytes);
        if from.is_at_end() {
            return Some(Self::Barrier);
        }
        let record = match from.u8()? {
            STORED => Self::Stored(Stored::decode(&mut from)?),
            SETTLED => Self::Settled(Settled {
                identity: from.identity()?,
                submission: SubmissionId(from.u128()?),
                fingerprint: from.fingerprint()?,
                accepted_at: from.time()?,
                at: from.time()?,
                outcome: from.outcome()?,
            }),
            DEAD => {
                let (outcome, at) = (from.outcome()?, from.time()?);
                Self::Dead(Stored::decode(&mut from)?, outcome, at)
            }
            KEY => Self::Key(Key {
                identity: from.identity()?,
                id: KeyId(from.u128()?),
                fingerprint: from.fingerprint()?,
                began_at: from.time()?,
                state: match from.u8()? {
                    0 => KeyState::Open(None),
                    1 => KeyState::Answered(Answer::new(from.bytes()?).ok()?),
                    2 => KeyState::Open(Some(Answer::new(from.bytes()?).ok()?)),
                    _ => return None,
                },
            }),
            KEY_FORGOTTEN => Self::KeyForgotten(from.identity()?, KeyId(from.u128()?)),
            ARRIVED => Self::Arrived(Arrived::decode(&mut from)?),
            CHANGED => Self::Changed(Changed {
                identity: from.identity()?,
                sequence: from.number()?,
                arrival: ArrivalId {
                    connection: ConnectionEpoch(from.number()?),
                    number: from.number()?,
                },
                token: Token::from_bits(from.u128()?),
                settlement: settlement_of(from.u8()?)?,
                delivery_count: from.number()?,
                is_gone: from.u8()? != 0,
                died: from.option(|from| DeadReason::of_code(from.u8()?))?,
                at: from.time()?,
            }),
            DEAD_MESSAGE => {
                let (reason, at) = (DeadReason::of_code(from.u8()?)?, from.time()?);
                Self::DeadMessage(Arrived::decode(&mut from)?, reason, at)
            }
            DISCARDED => Self::Discarded(from.identity()?, EntryId(from.number()?)),
            CREDENTIAL => {
                let (identity, number) = (from.identity()?, from.number()?);
                let expires_at = from.time()?;
                let sealed = Bytes::copy_from_slice(from.rest());
                let credential = SealedCredential::new(sealed, expires_at).ok()?;
                Self::Credential(identity, number, credential)
            }
            CREDENTIAL_FORGOTTEN => Self::CredentialForgotten(from.identity()?, from.number()?),
            _ => return None,
        };
        from.is_at_end().then_some(record)
    }
}

impl<'a> Stored<'a> {
    fn encode(&self, to: &mut Encoder) {
        to.identity(&self.identity)
            .number(self.entry.0)
            .u128(self.submission.0)
            .fingerprint(self.fingerprint)
            .time(self.accepted_at)
            .u8(lane_code(self.lane))
            .number(self.size)
            .rest(self.work);
    }

    fn decode(from: &mut Decoder<'a>) -> Option<Self> {
        Some(Self {
            identity: from.identity()?,
            entry: EntryId(from.number()?),
            submission: SubmissionId(from.u128()?),
            fingerprint: from.fingerprint()?,
            accepted_at: from.time()?,
            lane: lane_of(from.u8()?)?,
            size: from.number()?,
            work: from.rest(),
        })
    }
}

impl Arrived {
    fn encode(&self, to: &mut Encoder) {
        to.identity(&self.identity)
            .number(self.sequence)
            .number(self.arrival.connection.0)
            .number(self.arrival.number)
            .u128(self.token.bits())
            .time(self.arrived_at)
            .option(self.expires_at, Encoder::time)
            .number(self.delivery_count)
            .message(&self.message);
    }

    fn decode(from: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            identity: from.identity()?,
            sequence: from.number()?,
            arrival: ArrivalId {
                connection: ConnectionEpoch(from.number()?),
                number: from.number()?,
            },
            token: Token::from_bits(from.u128()?),
            arrived_at: from.time()?,
            expires_at: from.option(Decoder::time)?,
            delivery_count: from.number()?,
            message: from.message()?,
        })
    }
}

impl DeadReason {
    const fn code(self) -> u8 {
        match self {
            Self::Rejected => 1,
            Self::Expired => 2,
            Self::DeliveryCountExceeded => 3,
        }
    }

    const fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Rejected),
            2 => Some(Self::Expired),
            3 => Some(Self::DeliveryCountExceeded),
            _ => None,
        }
    }
}

const fn settlement_code(settlement: Settlement) -> u8 {
    match settlement {
        Settlement::Complete => 1,
        Settlement::Abandon => 2,
        Settlement::Reject => 3,
    }
}

const fn settlement_of(code: u8) -> Option<Settlement> {
    match code {
        1 => Some(Settlement::Complete),
        2 => Some(Settlement::Abandon),
        3 => Some(Settlement::Reject),
        _ => None,
    }
}

const fn lane_code(lane: Lane) -> u8 {
    match lane {
        Lane::Answers => 1,
        Lane::Twin => 2,
        Lane::Telemetry => 3,
    }
}

const fn lane_of(code: u8) -> Option<Lane> {
    match code {
        1 => Some(Lane::Answers),
        2 => Some(Lane::Twin),
        3 => Some(Lane::Telemetry),
        _ => None,
    }
}

const STORED: u8 = 1;
const SETTLED: u8 = 2;
const DEAD: u8 = 3;
const KEY: u8 = 4;
const KEY_FORGOTTEN: u8 = 5;
const ARRIVED: u8 = 6;
const CHANGED: u8 = 7;
const DEAD_MESSAGE: u8 = 8;
const DISCARDED: u8 = 9;
const CREDENTIAL: u8 = 10;
const CREDENTIAL_FORGOTTEN: u8 = 11;
/// Bytes of a record beside what it carries, unless names are very long.
const HEAD: usize = 192;
