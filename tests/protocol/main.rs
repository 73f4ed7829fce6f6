//! The node protocol, searched exhaustively at small size.
//!
//! The service in this model decides with the real [`ipam_api::ledger`]; the
//! node is a model of the shim: journal entries with their states and
//! acknowledgements, the sequence counter, `dataDir` and `stateDir`, what the
//! host has really wired, and every step that a lock or a crash can separate.
//! A message once sent stays deliverable for ever: it may arrive now, later, again, or
//! never, which is loss, delay, doubling and reordering in one. Answers go
//! only to the boot that asked, at any later time.
//!
//! # Searches ([`searches`])
//!
//! All faults together are too many states, so each search has some of them,
//! and all interleavings of those; every run prints its number of unique states.
//! One VM has two attachments and two addresses, except where `dataDir` is
//! lost: two boots of one number need one address only. Where a second VM
//! waits for the block, one address is the block.
//!
//! * ADD, DEL and reuse of addresses, with the service cut off or not, and a sync
//! * ADDs that fail and are undone, shims killed on the way
//! * syncs whose listing comes later than their `asOfSeq`; pruned entries
//! * a reboot, and a journal lost under running pods (P8)
//! * shims killed on the way, undos, and then a lost journal or a reboot; and all
//!   three faults in any order
//! * `dataDir` lost among two reboots: two boots of one number
//! * GC of one of two networks (P10)
//! * deletion (P6) of a node with pods and running shims, then another VM that
//!   gets the block; the same across a reboot; the same while claims are taken
//!   up and `dataDir` is lost
//! * a destroyed VM, `--vm-gone`, and `replace` (P9)
//! * a block that gives its last address up and takes it back, or gets it anew (P7), under pods, with
//!   late syncs, across a lost journal and across a reboot; what is given up counts as another node's at once
//!
//! In every state of each: no address is wired twice, on either VM; what was
//! acknowledged to a node is in the ledger; what the ledger holds, the node has
//! or still has to give back; ledger and journal agree after a clean sync, and
//! from *every* state one clean sync brings that about (or ends the deletion);
//! a running pod keeps its address; no database constraint is met. Each search
//! also names what must have happened in it, so that an empty one fails.
//!
//! # Rules known to be bad ([`mutants`])
//!
//! Each of them, put in place of ours, breaks a property. Five are not named
//! in the design and are why the rules say so:
//!
//! * a node that stops ADD for a deletion notes it in `dataDir`, durably,
//!   before it confirms: else it reboots, cut off, and goes on in a block that is another's;
//! * an answer on its way since before the deletion does not lift that stop;
//! * a fetched claim is used only after a sync under it is through: the answer
//!   to the fetch may be older than the end of the claim;
//! * an answer with an older block than the one known brings nothing back, even if its sync was listed
//!   later: of two syncs the later may be heard first;
//! * a boot is known by its number *and* the kernel's boot id: a node that
//!   lost `dataDir` while cut off gives a number twice.
//!
//! # Left out
//!
//! Time (rest, timeouts, back-off: any answer may simply not come),
//! `allocator: service`, strangers on the wire, a second ADD of a
//! live attachment (P4: fails before anything is sent), and a `stateDir` that
//! vanishes while a shim is at work. The two VMs are not alike: the second
//! registers, takes up and adds, which is what the first could hurt.

mod model;
mod mutants;
mod searches;
