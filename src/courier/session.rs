//! Sessions: one-way, opened by a signature, then one seal an envelope.

use std::fmt;

use bytes::Bytes;

use crate::crypto::{
    Domain, Identity, Random, SealError, SealingKeys, SessionContext, SessionSecret, commitment_of,
    verify,
};
use crate::model::limits::ROTATION;
use crate::model::{Now, PeerId, Prekey, PrekeyId, SessionId, Timestamp};
use crate::wire::{Envelope, Header, Opening, Tail};

/// Envelopes in one session at most; far below what AES-256-GCM bears under one key.
const ENVELOPES_MAX: u64 = 1 << 32;

/// A session of ours with a recipient. It lives in memory only: after a restart a new one is
/// opened, so no counter can be used twice.
pub(super) struct OutSession {
    context: SessionContext,
    keys: SealingKeys,
    /// Sent along until the first receipt, and again with whatever has to be sent again: the
    /// recipient may have lost the session.
    opening: Opening,
    /// Whether a receipt came.
    confirmed: bool,
    /// The next envelope's number.
    counter: u64,
    created: Timestamp,
}

impl OutSession {
    /// Opens a session to a recipient's prekey.
    pub(super) fn open(
        identity: &Identity,
        recipient: PeerId,
        prekey: &Prekey,
        now: Now,
        random: &mut Random,
    ) -> Result<Self, SealError> {
        let session = SessionId(random.number());
        let sender = identity.peer();
        let context = SessionContext { sender, recipient, session, prekey: prekey.id };
        let (encapsulation, secret) = SessionSecret::open(prekey, &context, random)?;
        let signature = identity.sign(Domain::Opening, &[&context.to_bytes(), &encapsulation[..]]);
        let encapsulation = Bytes::copy_from_slice(&encapsulation[..]);
        let opening = Opening { prekey: prekey.id, encapsulation, signature };
        let (keys, created) = (secret.keys(), now.wall);
        Ok(Self { context, keys, opening, confirmed: false, counter: 0, created })
    }

    pub(super) const fn id(&self) -> SessionId {
        self.context.session
    }

    /// Whether it may go on being used with a recipient that now publishes this prekey.
    pub(super) fn is_current(&self, prekey: PrekeyId, now: Now) -> bool {
        self.context.prekey == prekey
            && now.wall < self.created + ROTATION
            && self.created <= now.wall + ROTATION
            && self.counter < ENVELOPES_MAX
    }

    /// The recipient has it: no need to send the opening again.
    pub(super) const fn on_receipt(&mut self) {
        self.confirmed = true;
    }

    /// Whether the recipient is known to have had it.
    pub(super) const fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The same envelope with the opening, for a recipient that may have lost the session.
    pub(super) fn with_opening(&self, envelope: &Envelope, attempt: u16) -> Envelope {
        match Tail::decode(envelope.tail.clone()) {
            Ok(Tail { opening: None, sealed }) => {
                let tail = Tail::encode(Some(&self.opening), &sealed);
                Envelope::new(envelope.header, attempt, &tail)
            }
            _ => envelope.with_attempt(attempt),
        }
    }

    /// Seals a payload into the session's next envelope.
    pub(super) fn seal(&mut self, mut payload: Vec<u8>) -> Result<Envelope, SealError> {
        let counter = self.counter;
        self.counter += 1;
        let header = Header {
            source: self.context.sender,
            destination: self.context.recipient,
            session: self.context.session,
            counter,
            commitment: commitment_of(&self.keys.receipt(counter)),
        };
        self.keys.seal(counter, &header.aad(), &mut payload)?;
        let tail = Tail::encode((!self.confirmed).then_some(&self.opening), &payload);
        Ok(Envelope::new(header, 1, &tail))
    }
}

impl fmt::Debug for OutSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutSession({:?}, {})", self.context.session, self.counter)
    }
}

/// Whether the sender signed this opening.
pub(super) fn opening_holds(context: &SessionContext, opening: &Opening) -> bool {
    let signed = [&context.to_bytes()[..], &opening.encapsulation];
    verify(&context.sender, Domain::Opening, &signed, &opening.signature)
}
