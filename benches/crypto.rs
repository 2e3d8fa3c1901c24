//! What one envelope and one session cost: sealing, opening, signing.

#![expect(clippy::expect_used, reason = "a benchmark that cannot run should say so and stop")]

use distmsg::crypto::{
    Domain, Identity, PrekeySecret, Random, SessionContext, SessionSecret, verify,
};
use distmsg::model::{PeerId, Prekey, PrekeyId, SessionId, Timestamp};
use divan::Bencher;
use divan::counter::BytesCount;

fn main() {
    divan::main();
}

const SIZES: [usize; 2] = [128, 60 * 1024];

fn context() -> SessionContext {
    SessionContext {
        sender: PeerId::from_bytes([1; 32]),
        recipient: PeerId::from_bytes([2; 32]),
        session: SessionId(3),
        prekey: PrekeyId(4),
    }
}

fn prekey(random: &mut Random) -> (PrekeySecret, Prekey) {
    let secret = PrekeySecret::generate(PrekeyId(4), random);
    let public = secret.public().to_vec().into();
    (secret, Prekey { id: PrekeyId(4), expires: Timestamp::from_millis(1), public })
}

#[divan::bench(args = SIZES)]
fn seal(bencher: Bencher<'_, '_>, size: usize) {
    let mut random = Random::from_seed([1; 32]);
    let (_, prekey) = prekey(&mut random);
    let (_, secret) = SessionSecret::open(&prekey, &context(), &mut random).expect("opened");
    let keys = secret.keys();
    bencher.counter(BytesCount::new(size)).with_inputs(|| vec![7; size]).bench_local_values(
        |mut content| {
            keys.seal(1, &[0; 113], &mut content).expect("sealed");
            content
        },
    );
}

#[divan::bench(args = SIZES)]
fn open(bencher: Bencher<'_, '_>, size: usize) {
    let mut random = Random::from_seed([1; 32]);
    let (_, prekey) = prekey(&mut random);
    let (_, secret) = SessionSecret::open(&prekey, &context(), &mut random).expect("opened");
    let keys = secret.keys();
    let mut sealed = vec![7; size];
    keys.seal(1, &[0; 113], &mut sealed).expect("sealed");
    bencher.counter(BytesCount::new(size)).with_inputs(|| sealed.clone()).bench_local_values(
        |mut sealed| {
            keys.open(1, &[0; 113], &mut sealed).expect("opened");
            sealed
        },
    );
}

#[divan::bench]
fn open_session(bencher: Bencher<'_, '_>) {
    let mut random = Random::from_seed([1; 32]);
    let (_, prekey) = prekey(&mut random);
    bencher.bench_local(|| SessionSecret::open(&prekey, &context(), &mut random));
}

#[divan::bench]
fn accept_session(bencher: Bencher<'_, '_>) {
    let mut random = Random::from_seed([1; 32]);
    let (secret, prekey) = prekey(&mut random);
    let (encapsulation, _) = SessionSecret::open(&prekey, &context(), &mut random).expect("opened");
    bencher.bench_local(|| SessionSecret::accept(&secret, &encapsulation[..], &context()));
}

#[divan::bench]
fn sign(bencher: Bencher<'_, '_>) {
    let identity = Identity::from_seed(&[1; 32]);
    bencher.bench_local(|| identity.sign(Domain::Find, &[&[7; 2000]]));
}

#[divan::bench]
fn check_signature(bencher: Bencher<'_, '_>) {
    let identity = Identity::from_seed(&[1; 32]);
    let signature = identity.sign(Domain::Find, &[&[7; 2000]]);
    bencher.bench_local(|| verify(&identity.peer(), Domain::Find, &[&[7; 2000]], &signature));
}
