//! Whose database it is.
//!
//! The inbox, the links and the sessions are worth nothing to another identity, and its peers do
//! not know it: a key that was lost must not look like a start that went well.

use std::path::Path;

use rusqlite::Connection;

use crate::model::PeerId;
use crate::store::columns::Columns;
use crate::store::error::{OpenError, ReadError};

/// Compares the database's owner with the identity it is opened for. One that has none yet is new,
/// or older than this check, and takes the identity of today.
pub(super) fn check(connection: &Connection, path: &Path, own: PeerId) -> Result<(), OpenError> {
    match owner(connection).map_err(|error| error.on_open(path))? {
        Some(owner) if owner != own => {
            Err(OpenError::OtherIdentity { path: path.to_owned(), owner, own })
        }
        Some(_) => Ok(()),
        None => {
            let written = connection.execute("INSERT INTO owner VALUES (0, ?1)", [own.as_bytes()]);
            written.map(|_| ()).map_err(|error| ReadError::from(error).on_open(path))
        }
    }
}

fn owner(connection: &Connection) -> Result<Option<PeerId>, ReadError> {
    let mut statement = connection.prepare("SELECT id, peer FROM owner")?;
    let mut rows = statement.query([])?;
    rows.next()?.map(|row| Columns { table: "owner", row }.peer(1)).transpose()
}
