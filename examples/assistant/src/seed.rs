//! Owns made-up data: a database of the first release with plausible notes, tags and uploads.
//!
//! The same seed makes the same rows and bytes, on any machine and at any time.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;

use crate::error::Error;
use crate::files;
use crate::kind::INITIAL_SQL;
use crate::schema;
use crate::store;

/// What to make up.
#[derive(Debug, Clone)]
pub struct SeedPlan {
    /// The database; made when missing, else it must be at the first release's schema.
    pub db: PathBuf,
    /// The uploads folder; made when missing.
    pub uploads: PathBuf,
    /// How many ordinary notes to add.
    pub notes: usize,
    /// How many uploads to add.
    pub uploads_count: usize,
    /// The size to which long notes make the database grow.
    pub bytes_total: Option<u64>,
    /// What the made-up data depends on.
    pub seed: u64,
}

/// What a seeded database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeded {
    /// Rows in `notes`.
    pub notes: u64,
    /// Rows in `uploads`.
    pub uploads: u64,
    /// The size of the database file.
    pub db_bytes: u64,
}

/// The time of the oldest note: 2025-01-06T08:00:00Z, a Monday.
const EPOCH_SECONDS: i64 = 1_736_150_400;

/// The size of a long note. So long that the rows are few and lists and counts stay fast.
const LONG_BODY_BYTES: usize = 64_000;

/// What a long note takes on disk: 16 overflow pages of 4 KiB, and its share of a page of rows.
const LONG_NOTE_BYTES: usize = 16 * 4096 + 128;

/// How many bytes of long notes one transaction has: SQLite's cache then stays small.
const TRANSACTION_BYTES: usize = 64 << 20;

/// Makes a database of the first release with notes and uploads.
pub fn seed(db: &Path, uploads: &Path, notes: usize, uploads_n: usize, seed: u64) -> Result<Seeded, Error> {
    seed_with(&SeedPlan {
        db: db.to_path_buf(),
        uploads: uploads.to_path_buf(),
        notes,
        uploads_count: uploads_n,
        bytes_total: None,
        seed,
    })
}

/// Makes or grows a database of the first release.
pub fn seed_with(plan: &SeedPlan) -> Result<Seeded, Error> {
    let doing = || format!("seed database {}", plan.db.display());
    fs::create_dir_all(&plan.uploads).map_err(Error::io(doing()))?;
    let mut conn = schema::open_or_create(&plan.db).map_err(Error::sql(doing()))?;
    let found = schema::version(&conn).map_err(Error::sql(doing()))?;
    if found > 1 {
        let reason = format!("seeding needs a database of schema 1 or none, and this one has schema {found}");
        return Err(Error::Usage(reason));
    }
    let mut random = Random::new(plan.seed);
    let rows = fill(&mut conn, plan, &mut random, found == 0).map_err(Error::sql(doing()))?;
    add_uploads(&mut conn, plan, &mut random)?;
    let uploads = count(&conn, "select count(*) from uploads").map_err(Error::sql(doing()))?;
    // The last connection's end brings the log into the database file.
    conn.close().map_err(|(_, e)| Error::sql(doing())(e))?;
    let db_bytes = fs::metadata(&plan.db).map_err(Error::io(doing()))?.len();
    Ok(Seeded { notes: rows, uploads, db_bytes })
}

fn fill(conn: &mut Connection, plan: &SeedPlan, random: &mut Random, new: bool) -> rusqlite::Result<u64> {
    // Without a log each page is written once; whoever loses a half-seeded database seeds it again.
    conn.execute_batch("pragma journal_mode = off; pragma synchronous = off;")?;
    if new {
        let tx = conn.transaction()?;
        tx.execute_batch(INITIAL_SQL)?;
        tx.execute_batch(
            "create table schema_migrations (version integer primary key, applied_at text not null)",
        )?;
        schema::record(&tx, 1, &time_of(0))?;
        tx.commit()?;
    }
    for tag in TAGS {
        conn.execute("insert or ignore into tags (name) values (?1)", [tag])?;
    }
    // The long notes first, that is older: what the page shows are ordinary ones.
    if let Some(total) = plan.bytes_total {
        grow(conn, random, total)?;
    }
    let tx = conn.transaction()?;
    for _ in 0..plan.notes {
        let body = random.body();
        let id = add_note(&tx, &random.title(), &body)?;
        for _ in 0..random.below(3) {
            tx.prepare_cached(
                "insert or ignore into note_tags (note_id, tag_id) select ?1, id from tags where name = ?2",
            )?
            .execute((id, random.pick(&TAGS)))?;
        }
    }
    tx.commit()?;
    conn.execute_batch("pragma journal_mode = wal; pragma synchronous = normal;")?;
    count(conn, "select count(*) from notes")
}

fn count(conn: &Connection, sql: &str) -> rusqlite::Result<u64> {
    conn.query_row(sql, [], |row| row.get(0)).map(i64::unsigned_abs)
}

fn grow(conn: &mut Connection, random: &mut Random, total: u64) -> rusqlite::Result<()> {
    let page_bytes = count(conn, "pragma page_size")?;
    let mut body = String::with_capacity(LONG_BODY_BYTES + 64);
    loop {
        let tx = conn.transaction()?;
        let pages = count(&tx, "pragma page_count")?;
        let missing = usize::try_from(total.saturating_sub(pages * page_bytes)).unwrap_or(usize::MAX);
        let notes = missing.min(TRANSACTION_BYTES) / LONG_NOTE_BYTES;
        if notes == 0 {
            return Ok(());
        }
        for _ in 0..notes {
            random.long_text(&mut body, LONG_BODY_BYTES);
            add_note(&tx, &format!("Journal: {}", random.title()), &body)?;
        }
        tx.commit()?;
    }
}

fn add_note(conn: &Connection, title: &str, body: &str) -> rusqlite::Result<i64> {
    let id: i64 =
        conn.prepare_cached("select coalesce(max(id), 0) + 1 from notes")?.query_row([], |row| row.get(0))?;
    conn.prepare_cached("insert into notes (id, title, body, created_at) values (?1, ?2, ?3, ?4)")?
        .execute((id, title, body, time_of(id)))?;
    Ok(id)
}

/// The time of the n-th note: some time after the one before, and never in an order of its own.
fn time_of(n: i64) -> String {
    // Seven minutes, so that tens of thousands of notes still fit into the past.
    let since = SignedDuration::from_secs(n.saturating_mul(7 * 60));
    let epoch = Timestamp::from_second(EPOCH_SECONDS).unwrap_or(Timestamp::UNIX_EPOCH);
    store::timestamp(epoch.saturating_add(since).unwrap_or(Timestamp::MAX))
}

fn add_uploads(conn: &mut Connection, plan: &SeedPlan, random: &mut Random) -> Result<(), Error> {
    let doing = || format!("seed the uploads in {}", plan.uploads.display());
    let tx = conn.transaction().map_err(Error::sql(doing()))?;
    for n in 1..=plan.uploads_count {
        let name = format!("{}-{n:04}.{}", random.pick(&FILES), random.pick(&["txt", "md", "csv"]));
        let size = 500 + random.below(24_000);
        let mut text = String::new();
        random.long_text(&mut text, size);
        let stored_as = files::stored_name(&blake3::hash(text.as_bytes()), &name);
        // Written plainly: made-up files are not worth an fsync each.
        fs::write(plan.uploads.join(&stored_as), &text).map_err(Error::io(doing()))?;
        store::add_upload(&tx, &name, text.len() as i64, &stored_as, &time_of(n as i64))
            .map_err(Error::sql(doing()))?;
    }
    tx.commit().map_err(Error::sql(doing()))
}

/// Marsaglia's xorshift64* generator: small, fast and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give similar starts, and zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number from 0 to `n - 1`; the bias of the remainder does not matter here.
    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn title(&mut self) -> String {
        let (verb, thing) = (self.pick(&VERBS), self.pick(&THINGS));
        match self.below(10) {
            0..=5 => format!("{verb} {thing}"),
            6..=8 => format!("{verb} {thing} {}", self.pick(&OCCASIONS)),
            _ => {
                let (other, third) = (self.pick(&THINGS), self.pick(&THINGS));
                format!("{verb} {thing} {}, then see about {other} and {third}", self.pick(&OCCASIONS))
            }
        }
    }

    fn body(&mut self) -> String {
        let sentences: Vec<String> = (0..self.below(6))
            .map(|_| {
                let (verb, thing) = (self.pick(&VERBS).to_lowercase(), self.pick(&THINGS));
                format!("{} {verb} {thing} {}.", self.pick(&OPENINGS), self.pick(&OCCASIONS))
            })
            .collect();
        sentences.join(" ")
    }

    /// Fills `text` with at least `bytes` bytes of words, eight for each random number.
    fn long_text(&mut self, text: &mut String, bytes: usize) {
        text.clear();
        while text.len() < bytes {
            for choice in self.next().to_le_bytes() {
                text.push_str(WORDS[usize::from(choice) % WORDS.len()]);
            }
        }
        text.truncate(bytes);
    }
}

const TAGS: [&str; 9] = ["home", "work", "urgent", "health", "errands", "family", "ideas", "money", "garden"];

const FILES: [&str; 6] = ["receipt", "recipe", "minutes", "packing-list", "meter-readings", "letter"];

const VERBS: [&str; 14] = [
    "Call about",
    "Order",
    "Look into",
    "Renew",
    "Pay for",
    "Prepare",
    "Return",
    "Compare",
    "Repair",
    "Collect",
    "Write down",
    "Plan",
    "Cancel",
    "Tidy up",
];

const THINGS: [&str; 20] = [
    "the dentist appointment",
    "the train tickets",
    "Grandma's birthday cake",
    "the heating bill",
    "the tax return",
    "the bicycle",
    "the router firmware",
    "the backup disks",
    "the winter tyres",
    "the school trip",
    "the garden fence",
    "the library books",
    "the house insurance",
    "the café table",
    "the photo album",
    "the passport",
    "the coffee machine",
    "the tomato seedlings",
    "the meeting notes",
    "the spare keys",
];

const OCCASIONS: [&str; 10] = [
    "before Friday",
    "next week",
    "on Monday morning",
    "when Jana is back",
    "by the end of the month",
    "after work",
    "before the holidays",
    "at the weekend",
    "as agreed with Müller's",
    "if there is time",
];

const OPENINGS: [&str; 8] = [
    "Remember to",
    "Somebody should",
    "We wanted to",
    "Do not forget to",
    "It would be good to",
    "Ask Tom to",
    "Time to",
    "Once more:",
];

/// Words of long texts, each with the space after it; ASCII, so that a text may be cut anywhere.
const WORDS: [&str; 64] = [
    "morning ",
    "rain ",
    "walked ",
    "to ",
    "the ",
    "station ",
    "and ",
    "bought ",
    "bread ",
    "from ",
    "an ",
    "old ",
    "friend ",
    "who ",
    "remembered ",
    "our ",
    "summer ",
    "near ",
    "lake ",
    "with ",
    "letters, ",
    "maps ",
    "or ",
    "a ",
    "borrowed ",
    "ladder. ",
    "Later ",
    "we ",
    "counted ",
    "apples, ",
    "mended ",
    "two ",
    "chairs ",
    "while ",
    "children ",
    "slept. ",
    "Nothing ",
    "else ",
    "happened ",
    "until ",
    "evening ",
    "when ",
    "neighbours ",
    "brought ",
    "soup ",
    "for ",
    "everyone. ",
    "I ",
    "should ",
    "write ",
    "this ",
    "more ",
    "often, ",
    "because ",
    "small ",
    "days ",
    "disappear ",
    "quickly ",
    "between ",
    "larger ",
    "ones. ",
    "Tomorrow ",
    "is ",
    "Tuesday. ",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed_number: u64) -> (tempfile::TempDir, Seeded) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let seeded =
            seed(&dir.path().join("a.db"), &dir.path().join("up"), 120, 6, seed_number).expect("seeded data");
        (dir, seeded)
    }

    #[test]
    fn the_same_seed_makes_the_same_database() {
        let bytes = |dir: &tempfile::TempDir| fs::read(dir.path().join("a.db")).expect("a database");
        let ((one, counts), (two, _), (other, _)) = (seeded(5), seeded(5), seeded(6));
        assert_eq!((counts.notes, counts.uploads), (120, 6));
        assert_eq!(bytes(&one), bytes(&two));
        assert_ne!(bytes(&one), bytes(&other));
        assert_eq!(fs::read_dir(one.path().join("up")).expect("uploads").count(), 6);
    }

    #[test]
    fn seeding_is_left_behind_in_one_sound_file() {
        let (dir, _) = seeded(1);
        assert!(!dir.path().join("a.db-wal").exists());
        let conn = schema::open(&dir.path().join("a.db")).expect("a database");
        let text = |sql: &str| -> String { conn.query_row(sql, [], |row| row.get(0)).expect("a row") };
        assert_eq!(text("pragma integrity_check"), "ok");
        assert_eq!(text("pragma journal_mode"), "wal");
    }

    #[test]
    fn a_database_grows_to_the_size_asked_for() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let plan = SeedPlan {
            db: dir.path().join("a.db"),
            uploads: dir.path().join("up"),
            notes: 10,
            uploads_count: 0,
            bytes_total: Some(8 << 20),
            seed: 1,
        };
        let seeded = seed_with(&plan).expect("seeded data");
        let (least, most) = ((8 << 20) - 100_000, (8 << 20) + 20_000);
        assert!((least..most).contains(&seeded.db_bytes), "{seeded:?}");
    }
}
