//! The tables, and what one row of each looks like.

use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use rialto_protocol::effect::{Local, StoreOp};
use rialto_protocol::ids::{PeerId, hex};
use rialto_protocol::ledger::record::{Kind, RecordKey, Stored};
use rialto_protocol::{Restored, wire};

use super::StoreError;

/// owner ‖ kind ‖ id -> envelope ‖ CBOR of [`Stored`].
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// owner -> (complete, floor).
const OWNERS: TableDefinition<&[u8; 32], (u64, u64)> = TableDefinition::new("owners");
/// What the brain keeps for itself alone.
const LOCAL: TableDefinition<&str, &[u8]> = TableDefinition::new("local");
/// The store's own facts.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The schema of all of the above.
const SCHEMA: u64 = 1;
/// The first byte of each record's row: how the rest is written.
const ENVELOPE: u8 = 1;

/// Makes the tables where there are none, and refuses a ledger of a later program.
pub fn prepare(database: &Database) -> Result<(), StoreError> {
    let write = |error: String| StoreError::Write(error);
    let transaction = database.begin_write().map_err(|e| write(e.to_string()))?;
    let found = {
        let mut meta = transaction.open_table(META).map_err(|e| write(e.to_string()))?;
        let found = meta.get("schema").map_err(|e| write(e.to_string()))?.map(|row| row.value());
        if found.is_none() {
            meta.insert("schema", SCHEMA).map_err(|e| write(e.to_string()))?;
        }
        transaction.open_table(RECORDS).map_err(|e| write(e.to_string()))?;
        transaction.open_table(OWNERS).map_err(|e| write(e.to_string()))?;
        transaction.open_table(LOCAL).map_err(|e| write(e.to_string()))?;
        found
    };
    match found {
        Some(SCHEMA) => transaction.abort().map_err(|e| write(e.to_string())),
        Some(found) => Err(StoreError::Schema { found, known: SCHEMA }),
        None => transaction.commit().map_err(|e| write(e.to_string())),
    }
}

/// Reads everything.
pub fn read(database: &Database) -> Result<Restored, StoreError> {
    let failed = |error: String| StoreError::Read(error);
    let transaction = database.begin_read().map_err(|e| failed(e.to_string()))?;
    let mut restored = Restored::default();

    let records = transaction.open_table(RECORDS).map_err(|e| failed(e.to_string()))?;
    for row in records.iter().map_err(|e| failed(e.to_string()))? {
        let (key, value) = row.map_err(|e| failed(e.to_string()))?;
        restored.records.push(Arc::new(record(key.value(), value.value())?));
    }
    let owners = transaction.open_table(OWNERS).map_err(|e| failed(e.to_string()))?;
    for row in owners.iter().map_err(|e| failed(e.to_string()))? {
        let (owner, numbers) = row.map_err(|e| failed(e.to_string()))?;
        let (complete, floor) = numbers.value();
        restored.owners.push((PeerId(*owner.value()), complete, floor));
    }
    let local = transaction.open_table(LOCAL).map_err(|e| failed(e.to_string()))?;
    for row in local.iter().map_err(|e| failed(e.to_string()))? {
        let (key, value) = row.map_err(|e| failed(e.to_string()))?;
        restored.local.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok(restored)
}

/// The tables of one open transaction.
pub struct Tables<'t> {
    records: redb::Table<'t, &'static [u8], &'static [u8]>,
    owners: redb::Table<'t, &'static [u8; 32], (u64, u64)>,
    local: redb::Table<'t, &'static str, &'static [u8]>,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            records: transaction.open_table(RECORDS)?,
            owners: transaction.open_table(OWNERS)?,
            local: transaction.open_table(LOCAL)?,
        })
    }

    pub fn apply(&mut self, op: &StoreOp) -> Result<(), redb::Error> {
        match op {
            StoreOp::Put(stored) => self.put(stored),
            StoreOp::Delete { owner, key } => {
                self.records.remove(row_key(owner, key).as_slice())?;
                Ok(())
            }
            StoreOp::Owner { owner, complete, floor } => {
                self.owners.insert(&owner.0, (*complete, *floor))?;
                Ok(())
            }
            StoreOp::Local(local) => self.local(local),
        }
    }

    pub fn put(&mut self, stored: &Stored) -> Result<(), redb::Error> {
        let key = row_key(&stored.record.owner, &stored.record.key);
        let mut value = vec![ENVELOPE];
        value.extend(wire::encode(stored));
        self.records.insert(key.as_slice(), value.as_slice())?;
        Ok(())
    }

    pub fn local(&mut self, local: &Local) -> Result<(), redb::Error> {
        match &local.value {
            Some(value) => drop(self.local.insert(local.key.as_str(), value.as_slice())?),
            None => drop(self.local.remove(local.key.as_str())?),
        }
        Ok(())
    }

    /// Own writes reach `complete`; the floor stays where it is.
    pub fn reach(&mut self, owner: &PeerId, complete: u64) -> Result<(), redb::Error> {
        let floor = self.owners.get(&owner.0)?.map_or(0, |row| row.value().1);
        self.owners.insert(&owner.0, (complete, floor))?;
        Ok(())
    }
}

fn row_key(owner: &PeerId, key: &RecordKey) -> Vec<u8> {
    let mut row = Vec::with_capacity(33 + key.id.len());
    row.extend_from_slice(&owner.0);
    row.push(key.kind.0);
    row.extend_from_slice(key.id.as_bytes());
    row
}

/// Reads one row of the records, and checks that it stands under its own name.
fn record(key: &[u8], value: &[u8]) -> Result<Stored, StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt { table: "records", key: name(key), reason };
    let (envelope, body) = value.split_first().ok_or_else(|| corrupt("the row is empty".into()))?;
    if *envelope != ENVELOPE {
        return Err(corrupt(format!("envelope {envelope} is not known")));
    }
    let stored: Stored = wire::decode(body).map_err(|error| corrupt(error.to_string()))?;
    if row_key(&stored.record.owner, &stored.record.key) != key {
        return Err(corrupt("it holds another record".into()));
    }
    Ok(stored)
}

/// A record's key for people: `owner/kind/id`.
fn name(key: &[u8]) -> String {
    match key.split_at_checked(32) {
        Some((owner, [kind, id @ ..])) => {
            format!("{}/{}/{}", hex(&owner[..6]), Kind(*kind).name(), String::from_utf8_lossy(id))
        }
        _ => hex(key),
    }
}
