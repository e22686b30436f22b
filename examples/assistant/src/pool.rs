//! Owns the database connections of a running service: how many there are, and who has one.
//!
//! Each connection in use holds a permit of a semaphore. A release with the setting
//! `leak_connections` forgets both when a request ends: the connections really stay open.

use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::release::Settings;
use crate::schema;

/// The connections of one service.
pub(crate) struct Pool {
    db: PathBuf,
    permits: Arc<Semaphore>,
    size: u32,
    /// Absent once the pool is closed.
    idle: Mutex<Option<Vec<Connection>>>,
    /// Held by whoever writes. SQLite has one writer at a time anyway, but lets the others sleep for
    /// up to 100 ms between attempts, where this wakes the next one at once.
    writer: Mutex<()>,
    wait: Duration,
    leaks: bool,
}

/// No connection became free in time.
pub(crate) struct Exhausted;

/// The right to use one connection, until dropped.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    permit: Option<OwnedSemaphorePermit>,
    conn: Option<Connection>,
}

impl Pool {
    /// Makes a pool around the connection that was opened at start.
    pub fn new(db: PathBuf, first: Connection, settings: &Settings) -> Self {
        Self {
            db,
            permits: Arc::new(Semaphore::new(settings.pool_size as usize)),
            size: settings.pool_size,
            idle: Mutex::new(Some(vec![first])),
            writer: Mutex::new(()),
            wait: Duration::from_millis(settings.pool_wait_ms),
            leaks: settings.leak_connections,
        }
    }

    /// Waits for a connection, but not for ever.
    pub async fn lease(self: Arc<Self>) -> Result<Lease, Exhausted> {
        let permit = tokio::time::timeout(self.wait, Arc::clone(&self.permits).acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(Lease { pool: self, permit: Some(permit), conn: None }),
            // The semaphore is closed with the pool: there is nothing to lease either.
            Ok(Err(_)) | Err(_) => Err(Exhausted),
        }
    }

    /// Waits a while for every connection to be given back, and closes them all.
    ///
    /// The last connection to close brings SQLite's log into the database file. Left to the runtime's
    /// end, that would often not happen: the process is gone before its tasks are dropped.
    pub async fn close(&self, wait: Duration) {
        // Those still out after that are closed by the process's end; SQLite recovers from its log.
        let _ = tokio::time::timeout(wait, self.permits.acquire_many(self.size)).await;
        self.permits.close();
        drop(self.idle().take());
    }

    /// Waits for the turn to write; blocks.
    pub fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic while the list was locked cannot have left it half changed, so poison is no reason to stop.
    fn idle(&self) -> MutexGuard<'_, Option<Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Hands out the connection, which is opened when no idle one is left; blocks.
    pub fn connection(&mut self) -> rusqlite::Result<&mut Connection> {
        let conn = match self.conn.take().or_else(|| self.pool.idle().as_mut()?.pop()) {
            Some(conn) => conn,
            None => schema::open(&self.pool.db)?,
        };
        Ok(self.conn.insert(conn))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.pool.leaks {
            mem::forget(self.conn.take());
            mem::forget(self.permit.take());
        } else if let (Some(idle), Some(conn)) = (self.pool.idle().as_mut(), self.conn.take()) {
            // Before the permit, which is dropped after this function.
            idle.push(conn);
        }
    }
}
