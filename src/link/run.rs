//! A link that is up: one task reads and writes until it ends.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::accept::Place;
use super::channel::{CLOSE_TIMEOUT, Channel, FrameReader, FrameWriter, ReadEnd};
use super::endpoint::Context;
use super::event::{DialId, Direction, Ended, Event, LinkId};
use super::handshake::{Greeting, describe_loss};
use super::queue::{Alarm, LinkHandle, Queue, Work};
use crate::model::{PeerId, escaped};
use crate::wire::CloseReason;

/// A connection on which both ends are satisfied with each other.
pub(super) struct Established {
    pub(super) channel: Channel,
    pub(super) peer: PeerId,
    pub(super) direction: Direction,
    pub(super) dial: Option<DialId>,
    pub(super) address: SocketAddr,
    pub(super) greeting: Greeting,
    /// Given up when the link is announced: until then it counts as a handshake, so that those who
    /// dial us cannot pile up before whoever decides about links has heard of them.
    pub(super) place: Option<Place>,
}

/// How a link's two halves come to an end.
struct Exit {
    ended: Ended,
    /// Whether the other end is still to be told.
    tell: bool,
    /// Whether it was a write that failed: the other end's last word may be there to read.
    read_on: bool,
}

impl Exit {
    const fn telling(reason: CloseReason, text: String) -> Self {
        Self { ended: Ended::ByUs { reason, text }, tell: true, read_on: false }
    }

    const fn silent(ended: Ended) -> Self {
        Self { ended, tell: false, read_on: false }
    }
}

/// Serves a link from `Up` to `Down`.
pub(super) async fn run(context: Arc<Context>, established: Established) {
    let Established { mut channel, peer, direction, dial, address, greeting, place } = established;
    let link = context.next_link();
    let queue = Arc::new(Queue::new(context.queue_bytes_max));
    let handle = LinkHandle::new(link, Arc::clone(&queue));
    let Greeting { instance, record } = greeting;
    let up = Event::Up { link, peer, direction, dial, address, instance, record, handle };
    // At a pace: a peer that comes and goes without end shall not fill the disk.
    match context.changes.allow() {
        Some(unlogged) => {
            let unlogged = NonZeroU64::new(unlogged);
            info!(link = link.0, %peer, %address, ?direction, unlogged, "link up");
        }
        None => debug!(link = link.0, %peer, %address, ?direction, "link up"),
    }
    tokio::select! {
        sent = context.events.send(up) => if sent.is_err() { return },
        () = context.stopped() => return,
    }
    drop(place);
    let exit = serve(&context, link, &mut channel, &queue).await;
    queue.end();
    let ended = finish(exit, &context, link, &mut channel).await;
    match context.changes.allow() {
        Some(unlogged) => {
            let unlogged = NonZeroU64::new(unlogged);
            info!(link = link.0, %peer, %address, unlogged, "link down: {ended}");
        }
        None => debug!(link = link.0, %peer, %address, "link down: {ended}"),
    }
    let tell = matches!(ended, Ended::ByUs { .. });
    // Nobody is left to be told when the receiver of events is gone.
    let _ = context.events.send(Event::Down { link, ended }).await;
    if tell {
        channel.linger().await;
    }
}

/// Reads and writes until either comes to an end, or both are to be given up.
async fn serve(context: &Context, link: LinkId, channel: &mut Channel, queue: &Queue) -> Exit {
    let Channel { reader, writer } = channel;
    // In no fixed order: whichever comes first may use up what the runtime grants a task at once.
    tokio::select! {
        () = context.stopped() => Exit::telling(CloseReason::Stopping, String::new()),
        exit = give_up(queue) => exit,
        exit = write_all(context, link, writer, queue) => exit,
        end = read_all(context, link, reader) => exit_of(end),
    }
}

/// Waits until a writer that may be stuck is of no use any more.
async fn give_up(queue: &Queue) -> Exit {
    match queue.alarm().await {
        Alarm::Congested => Exit::silent(Ended::Lost(
            "congested: far more was queued than the peer took".to_owned(),
        )),
        Alarm::Closing(reason, text) => {
            sleep(CLOSE_TIMEOUT).await;
            Exit::silent(Ended::ByUs { reason, text })
        }
    }
}

async fn write_all(
    context: &Context,
    link: LinkId,
    writer: &mut FrameWriter,
    queue: &Queue,
) -> Exit {
    let mut frames = VecDeque::new();
    loop {
        match queue.take(&mut frames) {
            Some(Work::Frames) => {}
            Some(Work::Close(reason, text)) => return Exit::telling(reason, text),
            None => {
                writer.release_idle_memory();
                queue.wait().await;
                continue;
            }
        }
        while !frames.is_empty() {
            let bytes = fill(writer, &mut frames);
            if let Err(error) = writer.flush_unless_stalled(context.stall_timeout).await {
                let why = match error.kind() {
                    std::io::ErrorKind::TimedOut => {
                        format!("the peer took nothing for {:?}", context.stall_timeout)
                    }
                    _ => describe_loss(&error),
                };
                return Exit { ended: Ended::Lost(why), tell: false, read_on: true };
            }
            queue.wrote(bytes);
            if context.events.send(Event::Written { link, bytes }).await.is_err() {
                return Exit::telling(CloseReason::Stopping, String::new());
            }
        }
    }
}

/// Moves as many frames into the writer as go out at once; returns their bytes.
fn fill(writer: &mut FrameWriter, frames: &mut VecDeque<Bytes>) -> usize {
    let mut bytes = 0;
    while let Some(frame) = frames.front()
        && writer.has_room_for(frame)
    {
        writer.put(frame);
        bytes += frame.len();
        frames.pop_front();
    }
    bytes
}

/// Hands over what comes until nothing more does. `None`: nobody takes it any more.
async fn read_all(context: &Context, link: LinkId, reader: &mut FrameReader) -> Option<ReadEnd> {
    loop {
        let batch = reader.read_batch().await;
        if !batch.frames.is_empty() {
            let frames = Event::Frames { link, frames: batch.frames };
            context.events.send(frames).await.ok()?;
        }
        if batch.end.is_some() {
            return batch.end;
        }
    }
}

fn exit_of(end: Option<ReadEnd>) -> Exit {
    match end {
        None => Exit::telling(CloseReason::Stopping, String::new()),
        Some(ReadEnd::Close(reason, text)) => {
            Exit::silent(Ended::ByPeer { reason, text: escaped(&text) })
        }
        Some(ReadEnd::Eof) => Exit::silent(Ended::Lost("the peer hung up without a word".into())),
        Some(ReadEnd::Lost(error)) => Exit::silent(Ended::Lost(describe_loss(&error))),
        Some(ReadEnd::Malformed(error)) => Exit::telling(CloseReason::Protocol, error.to_string()),
    }
}

/// The last words, ours or theirs.
async fn finish(exit: Exit, context: &Context, link: LinkId, channel: &mut Channel) -> Ended {
    if let (true, Ended::ByUs { reason, text }) = (exit.tell, &exit.ended) {
        channel.say_close(*reason, text).await;
    }
    if exit.read_on {
        let rest = timeout(CLOSE_TIMEOUT, read_all(context, link, &mut channel.reader)).await;
        if let Ok(Some(ReadEnd::Close(reason, text))) = rest {
            return Ended::ByPeer { reason, text: escaped(&text) };
        }
    }
    exit.ended
}
