//! Finding the newest run of a procedure, or of several, however many others there are since.

use super::Journal;
use crate::error::EngineError;
use rusqlite::blob::Blob;
use rusqlite::{MAIN_DB, OptionalExtension as _, params};
use switchback_core::ids::RunId;
use switchback_core::journal::{Event, Outcome};
use switchback_core::plan::Procedure;

/// Within so many bytes a plan says what it is the plan of: only its format and its run stand before that.
const BEGINNING: usize = 256;
/// What stands before it.
const NAME: &[u8] = br#""procedure":"#;

impl Journal {
    /// Asks about the runs of the procedures that are wanted, newest first, until there is an answer.
    ///
    /// Of the others only the beginning of the plan is read, which takes microseconds; there may be ten thousand of them.
    pub fn newest_of<T>(
        &self,
        wanted: impl Fn(Procedure) -> bool,
        mut ask: impl FnMut(&RunId) -> Result<Option<T>, EngineError>,
    ) -> Result<Option<T>, EngineError> {
        self.at_one_moment(|| {
            let fails = |e| self.wrap(e);
            let sql = "SELECT seq, run FROM events WHERE kind = 'planned' ORDER BY seq DESC";
            let mut statement = self.connection.prepare(sql).map_err(fails)?;
            let mut rows = statement.query([]).map_err(fails)?;
            let mut opened: Option<Blob<'_>> = None;
            while let Some(row) = rows.next().map_err(fails)? {
                let seq: i64 = row.get(0).map_err(fails)?;
                let run = RunId(row.get(1).map_err(fails)?);
                let blob = match opened.take() {
                    Some(mut blob) => blob.reopen(seq).map(|()| blob),
                    None => self.connection.blob_open(MAIN_DB, "events", "json", seq, true),
                };
                let blob = blob.map_err(fails)?;
                let mut beginning = [0; BEGINNING];
                let got = blob.read_at(&mut beginning, 0).map_err(fails)?;
                opened = Some(blob);
                let fits = match named(&beginning[..got]) {
                    Some(name) => serde_json::from_slice(name).is_ok_and(&wanted),
                    // Written in another order, or damaged: then this says so.
                    None => wanted(self.load(&run)?.0.procedure),
                };
                if fits && let Some(answer) = ask(&run)? {
                    return Ok(Some(answer));
                }
            }
            Ok(None)
        })
    }

    /// How a run ended; `None` as long as it has not. Its other events are not looked at: [`Journal::load`] confirms them.
    pub fn outcome(&self, run: &RunId) -> Result<Option<Outcome>, EngineError> {
        // The `+` keeps SQLite from going through the ends of all runs.
        let sql = "SELECT json FROM events WHERE run = ?1 AND +kind = 'ended' ORDER BY seq DESC LIMIT 1";
        let json: Option<String> = self
            .connection
            .query_row(sql, params![run.as_str()], |r| r.get(0))
            .optional()
            .map_err(|e| self.wrap(e))?;
        let Some(json) = json else { return Ok(None) };
        match serde_json::from_str(&json) {
            Ok(Event::Ended { outcome }) => Ok(Some(outcome)),
            _ => Err(self.damaged(format!("the end of run {run} cannot be read"))),
        }
    }
}

/// The procedure of a plan that begins so, as JSON has it; `None` if it does not say.
fn named(beginning: &[u8]) -> Option<&[u8]> {
    let at = beginning.windows(NAME.len()).position(|bytes| bytes == NAME)? + NAME.len();
    let rest = &beginning[at..];
    let end = rest.iter().skip(1).position(|b| *b == b'"')? + 2;
    Some(&rest[..end])
}
