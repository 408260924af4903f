//! All system calls of a machine, in memory that needs no relocation: a table of `&str` would have the loader write to
//! dozens of pages in every process.

/// The most names that a machine has, and the most calls of an architecture.
const MOST: usize = 560;

/// Bytes of all names.
const TEXT: usize = 7168;

/// Places of the hash table: a power of two, and twice as many as names.
const SLOTS: usize = 1024;

/// A place that is free.
const FREE: u16 = u16::MAX;

/// A call of one architecture.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Call {
    /// Its number.
    pub(in super::super) number: u32,
    /// Its name, as [`Table::find`] gives it.
    pub(in super::super) name: u16,
    selector: u8,
}

impl Call {
    /// The first argument that makes this call of one that makes several: `socketcall(2)`, `ipc(2)`.
    pub(in super::super) fn selector(self) -> Option<u32> {
        (self.selector != 0).then(|| u32::from(self.selector))
    }
}

/// Names by a hash, and the calls of each architecture.
#[derive(Debug)]
pub(in super::super) struct Table {
    /// Names, one behind the other.
    text: [u8; TEXT],
    /// Where each begins; behind the last one, where it ends.
    starts: [u16; MOST],
    /// How many names there are.
    count: u16,
    /// A name for each place: the one of its hash, or the next that was free.
    slots: [u16; SLOTS],
    calls: [[Call; MOST]; 3],
    lengths: [usize; 3],
}

#[expect(clippy::indexing_slicing, reason = "only the compiler adds; what finds has indexes that were added")]
#[expect(clippy::cast_possible_truncation, clippy::cast_lossless, reason = "no From in what the compiler evaluates")]
impl Table {
    pub(super) const fn new() -> Self {
        let none = Call { number: 0, name: 0, selector: 0 };
        let (slots, calls) = ([FREE; SLOTS], [[none; MOST]; 3]);
        Self { text: [0; TEXT], starts: [0; MOST], count: 0, slots, calls, lengths: [0; 3] }
    }

    /// Adds a call to an architecture; they come in the order of their numbers.
    pub(super) const fn add(&mut self, architecture: usize, name: &str, number: u32, selector: u32) {
        let slot = self.slot(name);
        if self.slots[slot] == FREE {
            self.slots[slot] = self.count;
            let (bytes, start, mut at) = (name.as_bytes(), self.starts[self.count as usize] as usize, 0);
            while at < bytes.len() {
                self.text[start + at] = bytes[at];
                at += 1;
            }
            self.count += 1;
            self.starts[self.count as usize] = (start + bytes.len()) as u16;
        }
        let length = &mut self.lengths[architecture];
        self.calls[architecture][*length] = Call { number, name: self.slots[slot], selector: selector as u8 };
        *length += 1;
    }

    /// A name's place: where it is, or where it belongs.
    const fn slot(&self, name: &str) -> usize {
        let bytes = name.as_bytes();
        // FNV-1a; its upper bits are the better ones.
        let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
            at += 1;
        }
        let mut slot = (hash >> (u32::BITS - SLOTS.trailing_zeros())) as usize;
        while self.slots[slot] != FREE && !self.is(self.slots[slot], bytes) {
            slot = (slot + 1) % SLOTS;
        }
        slot
    }

    const fn is(&self, name: u16, bytes: &[u8]) -> bool {
        let (start, end) = (self.starts[name as usize] as usize, self.starts[name as usize + 1] as usize);
        let mut at = 0;
        while at < bytes.len() && start + at < end && self.text[start + at] == bytes[at] {
            at += 1;
        }
        at == bytes.len() && start + at == end
    }

    /// The number of a name, if the machine has a call of that name.
    pub(in super::super) fn find(&self, name: &str) -> Option<u16> {
        Some(self.slots[self.slot(name)]).filter(|name| *name != FREE)
    }

    /// How many names there are.
    pub(in super::super) fn names(&self) -> usize {
        usize::from(self.count)
    }

    /// The calls of an architecture.
    pub(super) fn calls(&self, architecture: usize) -> &[Call] {
        let calls = self.calls.get(architecture).map_or(&[][..], |calls| calls);
        calls.get(..self.lengths.get(architecture).copied().unwrap_or(0)).unwrap_or_default()
    }
}

/// Whether two names are one.
#[expect(clippy::indexing_slicing, reason = "the index is below both lengths")]
pub(super) const fn equal(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}
