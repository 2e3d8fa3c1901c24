//! Queues that are longer than what is kept in memory, and recipients that stay away.

use super::*;

const DEAD: PeerId = PeerId::from_bytes([9; 32]);

fn row(end: &End, row: u64, lifetime: Span) -> Outgoing {
    Outgoing {
        row: Row(row),
        id: MessageId([0; 16]),
        recipient: DEAD,
        incarnation: Incarnation(1),
        sequence: Sequence(row),
        queued: end.now.wall,
        expires: end.now.wall + lifetime,
        subject: None,
        key: None,
        body: Bytes::from_static(b"x"),
    }
}

/// A sender with that many messages for somebody on disk.
fn with_waiting(messages: u64) -> End {
    let mut end = End::new(1);
    let stored = Stored { waiting: vec![(DEAD, messages)], ..Stored::default() };
    let random = Random::from_seed([1; 32]);
    let identity = Arc::clone(&end.identity);
    end.courier = Courier::new(identity, &end.limits, stored, end.now, random);
    end.collect();
    end
}

fn take_load(end: &mut End) -> Option<Row> {
    let at = end.out.iter().position(|output| matches!(output, Output::Load { .. }))?;
    match end.out.remove(at) {
        Output::Load { after, .. } => Some(after),
        _ => unreachable!("only this was looked for"),
    }
}

#[test]
fn what_has_expired_goes_however_much_it_is() {
    let count = 10_000;
    let mut end = with_waiting(count);
    let messages: Vec<_> = (1..=count).map(|n| row(&end, n, Span::from_secs(60))).collect();
    // Nobody finds the recipient, and time passes.
    for _ in 0..8 {
        end.handle(Input::NotFound(DEAD));
        end.wait(Span::from_secs(900));
        while let Some(after) = take_load(&mut end) {
            let gone = end.given_up().len() as u64;
            let first = after.0.max(gone) as usize;
            let page = messages[first..messages.len().min(first + 1_024)].to_vec();
            end.handle(Input::Loaded { recipient: DEAD, messages: page });
        }
    }
    assert_eq!(end.given_up().len() as u64, count);
}

#[test]
fn an_answer_from_the_disk_that_comes_late_leaves_no_gap() {
    let mut end = with_waiting(3_000);
    let day = Span::from_secs(86_400);
    let page = |end: &End, first: u64| (first..first + 1_000).map(|n| row(end, n, day)).collect();
    // Found: the first page is read, the next is asked for; then the recipient is gone.
    let mut record = End::new(9).record();
    record.record.peer = DEAD;
    end.located(&record);
    assert_eq!(take_load(&mut end), Some(Row(0)));
    let first = page(&end, 1);
    end.handle(Input::Loaded { recipient: DEAD, messages: first });
    let pending = take_load(&mut end);
    assert_eq!(pending, Some(Row(1_000)), "the next page");
    for envelope in end.sent() {
        let commitment = envelope.header.commitment;
        let reason = RejectReason::NoRoute;
        end.handle(Input::Rejected { commitment, attempt: 1, reason });
    }
    end.handle(Input::NotFound(DEAD));
    // Only now the disk answers.
    let second = page(&end, 1_001);
    end.handle(Input::Loaded { recipient: DEAD, messages: second });
    end.wait(Span::from_secs(60));
    end.located(&record);
    let mut loaded = Vec::new();
    while let Some(after) = take_load(&mut end) {
        loaded.push(after.0);
        let next = if after.0 < 3_000 { page(&end, after.0 + 1) } else { Vec::new() };
        end.handle(Input::Loaded { recipient: DEAD, messages: next });
    }
    assert_eq!(loaded.first(), Some(&0), "from the start: {loaded:?}");
    assert_eq!(end.courier.queued(&DEAD), 3_000);
}
