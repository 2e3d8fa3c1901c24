//! Somebody who has all that a recipient's files hold, beside what passed through its hands: that
//! does not make it anybody else in the recipient's eyes.

use std::sync::Arc;

use bytes::Bytes;
use distmsg::crypto::{
    Domain, Identity, PrekeySecret, SessionContext, SessionSecret, commitment_of,
};
use distmsg::model::{Incarnation, PeerId, Sequence, SessionId, Span};
use distmsg::wire::{Envelope, Frame, Header, Item, Opening, PayloadWriter, Tail};

use crate::rig::{Rig, Side};
use Side::{Alice, Bob};

/// Of an envelope that nobody has sent before.
const COUNTER: u64 = 5;

/// What a thief can work with.
struct Thief {
    victim: Arc<Identity>,
    prekey: PrekeySecret,
    /// An opening of alice's that passed through its hands, and its header.
    opening: Opening,
    header: Header,
}

impl Thief {
    fn of(rig: &mut Rig) -> Self {
        let envelope = rig.intercept(Alice, 1, b"genuine");
        rig.say(Bob, &Frame::Envelope(envelope.clone()));
        rig.pass();
        let opening = Tail::decode(envelope.tail).expect("a tail").opening.expect("an opening");
        let (victim, prekeys) = rig.stolen(Bob);
        let prekey = prekeys.into_iter().find(|prekey| prekey.id() == opening.prekey);
        let prekey = prekey.expect("bob has the prekey that alice used");
        Self { victim, prekey, opening, header: envelope.header }
    }

    fn context(&self, session: SessionId) -> SessionContext {
        SessionContext {
            sender: self.header.source,
            recipient: self.victim.peer(),
            session,
            prekey: self.prekey.id(),
        }
    }

    /// The secret of any session that was opened to the prekey.
    fn secret(&self, encapsulation: &[u8], session: SessionId) -> SessionSecret {
        let context = self.context(session);
        SessionSecret::accept(&self.prekey, encapsulation, &context).expect("an encapsulation")
    }

    /// A message in alice's name, sealed as she would have.
    fn message(
        &self,
        rig: &Rig,
        secret: &SessionSecret,
        opening: &Opening,
        session: SessionId,
    ) -> Envelope {
        let keys = secret.keys();
        let commitment = commitment_of(&keys.receipt(COUNTER));
        let header = Header { session, counter: COUNTER, commitment, ..self.header };
        let now = rig.now().wall;
        let mut payload = PayloadWriter::new(Incarnation(9), Sequence::FIRST);
        payload.push(&Item::Message {
            sequence: Sequence::FIRST,
            sent: now,
            expires: now + Span::from_secs(3_600),
            subject: None,
            body: Bytes::from_static(b"forged"),
        });
        let mut sealed = payload.finish();
        keys.seal(COUNTER, &header.aad(), &mut sealed).expect("sealed");
        Envelope::new(header, 1, &Tail::encode(Some(opening), &sealed))
    }
}

fn sealed_by(rig: &mut Rig, thief: &Thief, session: SessionId) -> (Bytes, SessionSecret) {
    let prekey = rig.record(Bob).prekeys.into_iter().find(|prekey| prekey.id == thief.prekey.id());
    let context = thief.context(session);
    let (encapsulation, secret) =
        SessionSecret::open(&prekey.expect("current"), &context, &mut rig.random).expect("opened");
    (Bytes::copy_from_slice(&encapsulation[..]), secret)
}

/// The inbox that bob has, whatever the thief says to him.
fn bodies(rig: &Rig) -> Vec<(PeerId, Bytes)> {
    rig.inbox(Bob)
}

#[test]
fn a_thief_of_the_recipients_keys_opens_no_session_in_anothers_name() {
    let mut rig = Rig::new();
    let thief = Thief::of(&mut rig);
    let genuine = bodies(&rig);
    assert_eq!(genuine.len(), 1);
    let new = SessionId(thief.header.session.0 ^ 1);
    let (encapsulation, secret) = sealed_by(&mut rig, &thief, new);
    let context = thief.context(new).to_bytes();
    let signed: [&[u8]; 2] = [&context, &encapsulation];
    // An encapsulation of its own, signed with all the keys that it has, or with a signature of
    // alice's that it has seen.
    let signatures = [
        thief.victim.sign(Domain::Opening, &signed),
        rig.enemy.sign(Domain::Opening, &signed),
        thief.opening.signature,
    ];
    for signature in signatures {
        let opening =
            Opening { signature, encapsulation: encapsulation.clone(), ..thief.opening.clone() };
        let forged = thief.message(&rig, &secret, &opening, new);
        rig.say(Bob, &Frame::Envelope(forged));
        rig.pass();
        assert_eq!(bodies(&rig), genuine);
    }
    // Alice's own opening, under another session's name: it can derive that session's secret.
    let secret = thief.secret(&thief.opening.encapsulation, new);
    let forged = thief.message(&rig, &secret, &thief.opening, new);
    rig.say(Bob, &Frame::Envelope(forged));
    rig.pass();
    assert_eq!(bodies(&rig), genuine);
    // Under its own name it may write as anybody may.
    let own = rig.forge(Bob, &crate::rig::Forgery::default());
    rig.say(Bob, &Frame::Envelope(own));
    rig.pass();
    assert_eq!(bodies(&rig).len(), 2);
}

/// What a session's secret can do ends when the prekey is erased: an opening that was recorded is
/// worth nothing then, to the thief of the recipient's keys either.
#[test]
fn a_recorded_opening_is_worth_nothing_once_its_prekey_is_erased() {
    let mut rig = Rig::new();
    let thief = Thief::of(&mut rig);
    let session = thief.header.session;
    rig.skip(Span::from_secs(9 * 86_400));
    rig.restart(Bob);
    let (_, prekeys) = rig.stolen(Bob);
    assert!(prekeys.iter().all(|prekey| prekey.id() != thief.prekey.id()), "bob erased it");
    let secret = thief.secret(&thief.opening.encapsulation, session);
    let before = bodies(&rig);
    let forged = thief.message(&rig, &secret, &thief.opening, session);
    rig.say(Bob, &Frame::Envelope(forged));
    let heard = rig.heard(Bob);
    assert!(!heard.iter().any(|frame| matches!(frame, Frame::Receipt { .. })), "{heard:?}");
    assert_eq!(bodies(&rig), before);
}
