//! kill -9, at any moment, of whoever it may be: everything accepted arrives, once and in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::daemon::{Daemon, SOON, line, text};
use crate::random::Choices;
use crate::running::{Running, until};

/// The variable that asks for more kills.
const KILLS: &str = "DISTMSG_TEST_KILLS";
const KILLS_DEFAULT: u64 = 30;

/// Lines of each batch.
const BATCH: u64 = 40;
/// A kill happens at most this long after a batch was begun; one takes about half of it.
const MOMENT_MAX: Duration = Duration::from_millis(60);
/// A killed daemon stays away at most this long.
const AWAY_MAX: Duration = Duration::from_millis(150);
/// How long a send waits: who dials a peer that is killed again and again pauses up to 45 s.
const SEND_MAX: &str = "120s";
/// How long a send may take that waits so long.
const SENT_WITHIN: Duration = Duration::from_secs(150);
/// How long everything may take to arrive after the last kill.
const ARRIVAL_MAX: Duration = Duration::from_secs(90);
/// One line in so many needs several envelopes.
const LARGE_ONE_IN: u64 = 60;
const LARGE_BYTES: usize = 150_000;
/// Who is killed beside the three daemons: a client that listens at the last of them.
const LISTENING_CLIENT: usize = 3;

/// What was sent, and what was said about it.
#[derive(Default)]
struct Sent {
    bodies: Vec<String>,
    /// Places in `bodies` of what was reported as delivered.
    delivered: BTreeSet<u64>,
    /// The run of the sender in which each was queued, by place, where we can tell.
    run: BTreeMap<u64, u64>,
}

/// A client that listens, again and again under the same name, and what all its runs were given.
struct Ear {
    running: Option<Running>,
    given: Vec<u64>,
}

impl Ear {
    fn new(at: &Daemon) -> Self {
        let mut ear = Self { running: None, given: Vec::new() };
        ear.listen(at);
        ear
    }

    fn listen(&mut self, at: &Daemon) {
        self.running = Some(at.ctl_start(&["listen", "--name", "ear", "--json"]));
    }

    /// SIGKILL, if its daemon's end did not end it already.
    fn kill(&mut self, sent: &Sent) {
        let running = self.running.take().expect("it listens");
        running.signal(rustix::process::Signal::KILL);
        let output = running.finish();
        assert!(matches!(output.code, None | Some(3)), "{output:?}");
        let text = output.text();
        // It may have been killed within a line; then it has not acknowledged that.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        self.given.extend(whole.lines().map(|line| {
            let message = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            place_of(&message, sent)
        }));
    }

    /// Fails unless it was given everything at least once, and hardly anything twice.
    fn assert_heard_all(mut self, at: &Daemon, sent: &Sent) {
        until("the listener has acknowledged everything", ARRIVAL_MAX, || {
            let status = at.status();
            let all = status["listeners"].as_array().expect("listeners");
            let ear = all.iter().find(|listener| listener["name"] == "ear").expect("it is there");
            (ear["unread"] == 0).then_some(())
        });
        self.kill(sent);
        let once: BTreeSet<u64> = self.given.iter().copied().collect();
        assert_eq!(once.len(), sent.bodies.len(), "the listener was not given everything");
        eprintln!(
            "the listener was given {} of {} again",
            self.given.len() - once.len(),
            once.len()
        );
    }
}

/// The place of a message that must be whole.
fn place_of(message: &serde_json::Value, sent: &Sent) -> u64 {
    let body = text(message, "body");
    let place = body.split(' ').next().and_then(|n| n.parse().ok()).expect("a place");
    assert!(body == sent.bodies[place as usize], "message {place} is whole");
    place
}

#[test]
fn whatever_is_killed_everything_queued_arrives_once_and_in_order() {
    let kills =
        std::env::var(KILLS).map_or(KILLS_DEFAULT, |kills| kills.parse().expect("a number"));
    let mut choices = Choices::new();
    let mut net = line("abc");
    let mut ear = Ear::new(&net[2]);
    let (mut sent, mut run) = (Sent::default(), 0);
    for kill in 0..kills {
        let bodies: Vec<String> =
            (0..BATCH).map(|n| body(kill * BATCH + n, &mut choices)).collect();
        let victim = usize::try_from(choices.below(4)).expect("small");
        send_and_kill(&mut net, &mut ear, victim, &bodies, &mut sent, &mut run, &mut choices);
    }
    assert_all_arrived(&net[0], &net[2], &sent);
    ear.assert_heard_all(&net[2], &sent);
}

/// A body that tells its place.
fn body(place: u64, choices: &mut Choices) -> String {
    match choices.below(LARGE_ONE_IN) {
        0 => format!("{place} {}", "large ".repeat(LARGE_BYTES / 6)),
        _ => format!("{place} small"),
    }
}

/// Sends a batch, kills somebody meanwhile, starts him again, and sends what was not accepted
/// again, with the same key, until all is.
fn send_and_kill(
    net: &mut [Daemon],
    ear: &mut Ear,
    victim: usize,
    bodies: &[String],
    sent: &mut Sent,
    run: &mut u64,
    choices: &mut Choices,
) {
    let first = sent.bodies.len() as u64;
    let key = format!("batch {first}");
    let wait = ["queued", "delivered", "sent", "delivered"][choices.below(4) as usize];
    let to = net[2].peer.clone();
    let args =
        ["send", &to, "--lines", "--json", "--id", &key, "--wait", wait, "--timeout", SEND_MAX];
    sent.bodies.extend_from_slice(bodies);
    let stdin = bodies.join("\n") + "\n";
    for attempt in 0.. {
        let mut send = net[0].ctl_start(&args);
        // It may end before it has read all, when its daemon is killed.
        send.give(stdin.as_bytes());
        send.close();
        if attempt == 0 {
            choices.pass(MOMENT_MAX);
            if victim < LISTENING_CLIENT {
                net[victim].kill();
                choices.pass(AWAY_MAX);
                net[victim].boot();
            }
            if victim >= 2 {
                ear.kill(sent);
                ear.listen(&net[2]);
            }
        }
        let output = send.finish_within(SENT_WITHIN);
        for answer in output.json() {
            let place = first + answer["line"].as_u64().unwrap_or_else(|| panic!("{answer}")) - 1;
            if answer["state"] == "delivered" {
                sent.delivered.insert(place);
            }
            // One that was queued before, and not reported then, was queued in the run before.
            let queued_in = if answer["duplicate"] == true { *run - 1 } else { *run };
            sent.run.entry(place).or_insert(queued_in);
        }
        *run += u64::from(victim == 0 && attempt == 0);
        match output.code {
            Some(0) => return,
            Some(3) if victim == 0 && attempt == 0 => {}
            _ => drop(output.exits(0)),
        }
    }
}

fn assert_all_arrived(a: &Daemon, c: &Daemon, sent: &Sent) {
    until("everything queued arrives", ARRIVAL_MAX, || {
        let count = c.status()["inbox_messages"].as_u64().expect("a number");
        (count >= sent.bodies.len() as u64).then_some(())
    });
    until("every receipt comes back", SOON, || (a.queued() == 0).then_some(()));
    let count = sent.bodies.len().to_string();
    let listened = c.ctl(&["listen", "--count", &count, "--timeout", "30s", "--json"]).exits(0);
    let places: Vec<u64> = listened.json().iter().map(|message| place_of(message, sent)).collect();
    assert_eq!(c.status()["inbox_messages"].as_u64(), Some(places.len() as u64), "no more came");
    let once: BTreeSet<u64> = places.iter().copied().collect();
    assert_eq!(once.len(), places.len(), "none came twice");
    assert_eq!(once.len(), sent.bodies.len(), "none is lost");
    assert!(sent.delivered.is_subset(&once), "what was reported as delivered was");
    let mut last_of_run: BTreeMap<u64, u64> = BTreeMap::new();
    for place in places {
        let Some(run) = sent.run.get(&place) else { continue };
        if let Some(last) = last_of_run.insert(*run, place) {
            assert!(last < place, "of run {run}, {place} came after {last}");
        }
    }
}

#[test]
fn a_sender_killed_after_queued_delivers_when_it_is_back() {
    let mut net = line("abc");
    let to = net[2].peer.clone();
    for n in 0..3 {
        // Nobody is there to take it, so it is the sender's disk that counts.
        net[1].kill();
        net[0].ctl(&["send", &to, &format!("message {n}"), "--wait", "queued"]).exits(0);
        net[0].kill();
        net[1].boot();
        net[0].boot();
        until("it arrives", SOON, || (net[2].bodies().len() > n).then_some(()));
    }
    assert_eq!(net[2].bodies(), ["message 0", "message 1", "message 2"]);
}

#[test]
fn what_was_reported_as_delivered_is_there_when_the_recipient_is_killed_at_once() {
    let mut net = line("ab");
    let to = net[1].peer.clone();
    for n in 0..5 {
        net[0].ctl(&["send", &to, &format!("message {n}"), "--timeout", "30s"]).exits(0);
        net[1].kill();
        net[1].boot();
        assert_eq!(net[1].bodies().len(), n + 1, "message {n} was delivered");
    }
}

#[test]
fn an_offline_recipient_gets_what_is_queued_when_it_starts() {
    let mut net = line("abc");
    let to = net[2].peer.clone();
    net[0].ctl(&["send", &to, "before"]).exits(0);
    assert!(net[2].terminate().success());
    let output = net[0].ctl(&["send", &to, "while away", "--timeout", "2"]).exits(4);
    assert!(output.stderr.contains("queued"), "it says that it is queued: {}", output.stderr);
    assert_eq!(output.text(), "");
    assert_eq!(net[0].queued(), 1);
    net[2].boot();
    until("it is delivered by itself", SOON, || {
        (net[2].bodies() == ["before", "while away"]).then_some(())
    });
    until("and the sender knows", SOON, || (net[0].queued() == 0).then_some(()));
}
