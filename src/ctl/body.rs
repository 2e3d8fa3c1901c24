//! Reading bodies without reading more than the daemon would take.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::context::{answered, connect};
use super::exit::{Failed, Stop};
use super::input::Input;
use crate::config::Endpoint;
use crate::control::protocol::{Done, Request, UploadBegin};
use crate::model::Limits;
use crate::model::limits::MESSAGE_BYTES_CEILING;

/// How large a body may be.
///
/// The daemon decides that, by its configuration. Up to its default we do not ask; beyond, we ask
/// at each doubling whether what was read so far would be taken, and read on only then. So an
/// endless input costs 16 MiB and one question, and a daemon that was configured for more gets
/// more.
pub(crate) struct Allowance {
    endpoint: Endpoint,
    bytes_max: usize,
}

impl Allowance {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), bytes_max: Limits::default().message_bytes_max }
    }

    /// Bytes that may be read without asking again.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Asks whether a body of this length would be taken; then twice that may be read.
    pub(crate) async fn ask(&mut self, bytes: usize) -> Result<(), Stop> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        if bytes > MESSAGE_BYTES_CEILING {
            let ceiling = super::text::size(MESSAGE_BYTES_CEILING as u64);
            return Err(Failed::too_large(format!("a body has at most {ceiling}")).into());
        }
        // On a connection of its own, which takes the upload with it when it is closed.
        let (client, _events) = connect(&self.endpoint).await?;
        let begin = Request::UploadBegin(UploadBegin { upload: 1, bytes: bytes as u64 });
        answered(Duration::ZERO, client.call::<Done>(&begin)).await?;
        self.bytes_max = bytes.saturating_mul(2).min(MESSAGE_BYTES_CEILING);
        Ok(())
    }
}

/// A whole body from a file.
pub(crate) async fn from_file(path: &Path, allowance: &mut Allowance) -> Result<Vec<u8>, Stop> {
    let why = |error| Failed::local(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(why)?;
    let about = file.metadata().map_err(why)?;
    if about.is_dir() {
        return Err(Failed::local(format!("{} is a directory", path.display())).into());
    }
    allowance.ask(usize::try_from(about.len()).unwrap_or(usize::MAX)).await?;
    let input = Input::file(file).map_err(why)?;
    whole(input, &path.display().to_string(), allowance).await
}

/// A whole body from an input, to its end.
pub(crate) async fn whole(
    mut input: Input,
    name: &str,
    allowance: &mut Allowance,
) -> Result<Vec<u8>, Stop> {
    let mut body = Vec::new();
    while let Some(read) = input.next().await {
        let bytes = read.map_err(|error| Failed::local(format!("cannot read {name}: {error}")))?;
        allowance.ask(body.len() + bytes.len()).await?;
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}
