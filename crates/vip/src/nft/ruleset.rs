//! The tables of the fence: which packets pass only while a lease element lives.
//!
//! In each table one set lists the fenced addresses and one holds the leases, whose elements the kernel lets expire. A third
//! holds the addresses that take no new connections for now. As `nft list ruleset` shows it, for a table of the inet family:
//!
//! ```text
//! set guard  { type mark; flags timeout; }
//! set vips4  { type ipv4_addr; }
//! set lease4 { type ipv4_addr; flags timeout; }
//! set quiet4 { type ipv4_addr; flags timeout; }
//! chain in {
//!     type filter hook prerouting priority raw;
//!     ip daddr @vips4 fib daddr type local ip daddr != @lease4 drop
//!     ip6 daddr @vips6 fib daddr type local ip6 daddr != @lease6 drop
//!     meta nfproto ipv4 tcp flags & (syn | ack) == syn ip daddr @quiet4 fib daddr type local drop
//!     meta nfproto ipv6 tcp flags & (syn | ack) == syn ip6 daddr @quiet6 fib daddr type local drop
//! }
//! chain out {
//!     type filter hook output priority raw;
//!     ip saddr @vips4 ip saddr != @lease4 drop
//!     ip6 saddr @vips6 ip6 saddr != @lease6 drop
//! }
//! ```
//!
//! What the kernel or this process says of an IPv6 address has it as its source (`ndisc_send_na` of `net/ipv6/ndisc.c`), so
//! that nothing needs to look into neighbour discovery: nft 1.0.6 prints such rules and then does not read them.
//!
//! The arp family has the same for questions about the address and for what the kernel itself says of it. Announcements
//! leave through packet sockets, which pass none of these hooks, so a chain of the netdev family stands at the way out of
//! each interface. `in` comes before any translation of addresses, which would hide the address; what this machine only
//! forwards or bridges, to another holder, is not `local` and passes. Answers *about* the address from its next holder pass
//! too: this machine is a client like any other then.

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::batch::Batch;
use super::numbers::*;

/// Before connection tracking (`NF_IP_PRI_RAW`), so that fenced packets leave no trace there.
const PRIORITY: i32 = -300;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const TCP: u8 = 6;
/// Where RFC 9293 §3.1 puts a segment's flags, and two of them.
const TCP_FLAGS: Field = Field { base: TRANSPORT_HEADER, offset: 13 };
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Bounds how long a renewal may take, see [`super::Nft::arm`].
pub(super) const GUARD: &str = "guard";
/// The one element of that set.
pub(super) const GUARD_KEY: [u8; 4] = [0, 0, 0, 1];
/// Fenced IPv4 addresses.
pub(super) const VIPS4: &str = "vips4";
/// Those with a lease.
pub(super) const LEASE4: &str = "lease4";
/// Fenced IPv6 addresses.
pub(super) const VIPS6: &str = "vips6";
/// Those with a lease.
pub(super) const LEASE6: &str = "lease6";
/// IPv4 addresses that take no new connections; of the inet family only.
pub(super) const QUIET4: &str = "quiet4";
/// IPv6 addresses that take no new connections.
pub(super) const QUIET6: &str = "quiet6";

/// Replaces the tables by new ones in which nothing is fenced yet.
pub(super) fn replace_tables(batch: &mut Batch, table: &str, netdev: bool) {
    for family in [FAMILY_INET, FAMILY_ARP, FAMILY_NETDEV] {
        if family == FAMILY_NETDEV && !netdev {
            continue;
        }
        // Creating first lets the removal succeed when there was none.
        drop_table(batch, family, table);
        batch.create(NEW_TABLE, family);
        batch.put_text(TABLE_NAME, table);
        set(batch, family, table, VIPS4, TYPE_IPV4, 4, 0);
        set(batch, family, table, LEASE4, TYPE_IPV4, 4, SET_HAS_TIMEOUTS);
    }
    guard_set(batch, table);
    set(batch, FAMILY_INET, table, VIPS6, TYPE_IPV6, 16, 0);
    set(batch, FAMILY_INET, table, LEASE6, TYPE_IPV6, 16, SET_HAS_TIMEOUTS);
    set(batch, FAMILY_INET, table, QUIET4, TYPE_IPV4, 4, SET_HAS_TIMEOUTS);
    set(batch, FAMILY_INET, table, QUIET6, TYPE_IPV6, 16, SET_HAS_TIMEOUTS);

    let inet = |batch: &mut Batch, name, hook| chain(batch, FAMILY_INET, table, name, hook, PRIORITY, None);
    inet(batch, "in", INET_PREROUTING);
    let arriving = Headers { ipv4: 16, ipv6: 24, local_only: true };
    address_rules(batch, table, "in", &arriving);
    quiet_rules(batch, table, "in", &arriving);
    inet(batch, "out", INET_OUTPUT);
    address_rules(batch, table, "out", &Headers { ipv4: 12, ipv6: 8, local_only: false });

    // RFC 826: hardware type, protocol, two lengths, operation, then Ethernet and IPv4 address of sender and target.
    chain(batch, FAMILY_ARP, table, "in", ARP_INPUT, 0, None);
    arp_rule(batch, FAMILY_ARP, table, "in", 24);
    chain(batch, FAMILY_ARP, table, "out", ARP_OUTPUT, 0, None);
    arp_rule(batch, FAMILY_ARP, table, "out", 14);
}

fn guard_set(batch: &mut Batch, table: &str) {
    set(batch, FAMILY_INET, table, GUARD, TYPE_MARK, 4, SET_HAS_TIMEOUTS);
}

/// What [`super::Nft::arm`] needs, whatever else of the table is there.
pub(super) fn guard_only(batch: &mut Batch, table: &str) {
    batch.create(NEW_TABLE, FAMILY_INET);
    batch.put_text(TABLE_NAME, table);
    guard_set(batch, table);
}

/// Removes a table, there or not.
pub(super) fn drop_table(batch: &mut Batch, family: u8, table: &str) {
    batch.create(NEW_TABLE, family);
    batch.put_text(TABLE_NAME, table);
    batch.message(DEL_TABLE, family, 0);
    batch.put_text(TABLE_NAME, table);
}

fn egress(index: u32) -> String {
    format!("egress{index}")
}

/// Fences what leaves through packet sockets on an interface.
pub(super) fn guard_egress(batch: &mut Batch, table: &str, index: u32, device: &str) {
    let name = egress(index);
    chain(batch, FAMILY_NETDEV, table, &name, NETDEV_EGRESS, 0, Some(device));
    rule(batch, FAMILY_NETDEV, table, &name, |batch| {
        meta_is(batch, META_PROTOCOL, &ETHERTYPE_ARP);
        listed(batch, Field { base: NETWORK_HEADER, offset: 14 }, VIPS4);
        drop_without(batch, LEASE4);
    });
}

/// Ends that.
pub(super) fn unguard_egress(batch: &mut Batch, table: &str, index: u32) {
    batch.message(DEL_CHAIN, FAMILY_NETDEV, 0);
    batch.put_text(CHAIN_TABLE, table);
    batch.put_text(CHAIN_NAME, &egress(index));
}

/// Where the address in question stands in the IP headers (RFC 791, RFC 8200), and whether it must be this machine's own.
struct Headers {
    ipv4: u32,
    ipv6: u32,
    local_only: bool,
}

fn address_rules(batch: &mut Batch, table: &str, chain: &str, headers: &Headers) {
    let families = [(NFPROTO_IPV4, headers.ipv4, VIPS4, LEASE4), (NFPROTO_IPV6, headers.ipv6, VIPS6, LEASE6)];
    for (family, offset, vips, leases) in families {
        rule(batch, FAMILY_INET, table, chain, |batch| {
            meta_is(batch, META_NFPROTO, &[family]);
            listed(batch, Field { base: NETWORK_HEADER, offset }, vips);
            if headers.local_only {
                destination_is_local(batch);
            }
            drop_without(batch, leases);
        });
    }
}

/// Drops what would open a connection, before anything answers it: the client sends it again after a second (RFC 6298 §2).
/// The flags come first, so that other segments are not looked up.
fn quiet_rules(batch: &mut Batch, table: &str, chain: &str, headers: &Headers) {
    for (family, offset, set) in [(NFPROTO_IPV4, headers.ipv4, QUIET4), (NFPROTO_IPV6, headers.ipv6, QUIET6)]
    {
        rule(batch, FAMILY_INET, table, chain, |batch| {
            meta_is(batch, META_NFPROTO, &[family]);
            meta_is(batch, META_L4PROTO, &[TCP]);
            payload(batch, TCP_FLAGS, 1);
            mask(batch, SYN | ACK);
            compare(batch, REGISTER, &[SYN]);
            listed(batch, Field { base: NETWORK_HEADER, offset }, set);
            // What is forwarded to the next holder is its own affair.
            destination_is_local(batch);
            drop_packet(batch);
        });
    }
}

fn arp_rule(batch: &mut Batch, family: u8, table: &str, chain: &str, offset: u32) {
    rule(batch, family, table, chain, |batch| {
        listed(batch, Field { base: NETWORK_HEADER, offset }, VIPS4);
        drop_without(batch, LEASE4);
    });
}

fn set(batch: &mut Batch, family: u8, table: &str, name: &str, kind: u32, length: u32, flags: u32) {
    batch.create(NEW_SET, family);
    batch.put_text(SET_TABLE, table);
    batch.put_text(SET_NAME, name);
    batch.put_number(SET_FLAGS, flags);
    batch.put_number(SET_KEY_TYPE, kind);
    batch.put_number(SET_KEY_LENGTH, length);
    // Wanted by the kernel; of use only for sets without names.
    batch.put_number(SET_ID, 1);
}

fn chain(
    batch: &mut Batch,
    family: u8,
    table: &str,
    name: &str,
    hook: u32,
    priority: i32,
    device: Option<&str>,
) {
    batch.create(NEW_CHAIN, family);
    batch.put_text(CHAIN_TABLE, table);
    batch.put_text(CHAIN_NAME, name);
    batch.put_text(CHAIN_TYPE, "filter");
    let nest = batch.open(CHAIN_HOOK);
    batch.put_number(HOOK_NUMBER, hook);
    batch.put_number(HOOK_PRIORITY, priority.cast_unsigned());
    if let Some(device) = device {
        batch.put_text(HOOK_DEVICE, device);
    }
    batch.close(nest);
}

fn rule(batch: &mut Batch, family: u8, table: &str, chain: &str, expressions: impl FnOnce(&mut Batch)) {
    batch.message(NEW_RULE, family, NLM_F_CREATE | NLM_F_APPEND);
    batch.put_text(RULE_TABLE, table);
    batch.put_text(RULE_CHAIN, chain);
    let nest = batch.open(RULE_EXPRESSIONS);
    expressions(batch);
    batch.close(nest);
}

fn expression(batch: &mut Batch, name: &str, data: impl FnOnce(&mut Batch)) {
    let element = batch.open(LIST_ELEMENT);
    batch.put_text(EXPRESSION_NAME, name);
    let nest = batch.open(EXPRESSION_DATA);
    data(batch);
    batch.close(nest);
    batch.close(element);
}

/// A field of the packet.
#[derive(Clone, Copy)]
struct Field {
    base: u32,
    offset: u32,
}

fn payload(batch: &mut Batch, field: Field, length: u32) {
    expression(batch, "payload", |batch| {
        batch.put_number(PAYLOAD_REGISTER, REGISTER);
        batch.put_number(PAYLOAD_BASE, field.base);
        batch.put_number(PAYLOAD_OFFSET, field.offset);
        batch.put_number(PAYLOAD_LENGTH, length);
    });
}

fn compare(batch: &mut Batch, register: u32, value: &[u8]) {
    expression(batch, "cmp", |batch| {
        batch.put_number(COMPARE_REGISTER, register);
        batch.put_number(COMPARE_OPERATION, EQUAL);
        let nest = batch.open(COMPARE_DATA);
        batch.put(DATA_VALUE, value);
        batch.close(nest);
    });
}

/// Leaves only these bits of the byte in the first register.
fn mask(batch: &mut Batch, bits: u8) {
    expression(batch, "bitwise", |batch| {
        batch.put_number(BITWISE_SOURCE, REGISTER);
        batch.put_number(BITWISE_REGISTER, REGISTER);
        batch.put_number(BITWISE_LENGTH, 1);
        for (attribute, value) in [(BITWISE_MASK, bits), (BITWISE_XOR, 0)] {
            let nest = batch.open(attribute);
            batch.put(DATA_VALUE, &[value]);
            batch.close(nest);
        }
    });
}

fn meta_is(batch: &mut Batch, key: u32, value: &[u8]) {
    expression(batch, "meta", |batch| {
        batch.put_number(META_REGISTER, REGISTER);
        batch.put_number(META_KEY, key);
    });
    compare(batch, REGISTER, value);
}

/// Goes on only if the packet would be delivered to this machine. Leaves the first register alone.
fn destination_is_local(batch: &mut Batch) {
    expression(batch, "fib", |batch| {
        batch.put_number(FIB_REGISTER, SECOND_REGISTER);
        batch.put_number(FIB_RESULT, FIB_ADDRESS_TYPE);
        batch.put_number(FIB_FLAGS, FIB_OF_DESTINATION);
    });
    compare(batch, SECOND_REGISTER, &LOCAL.to_ne_bytes());
}

fn lookup(batch: &mut Batch, set: &str, inverted: bool) {
    expression(batch, "lookup", |batch| {
        batch.put_text(LOOKUP_SET, set);
        batch.put_number(LOOKUP_REGISTER, REGISTER);
        if inverted {
            batch.put_number(LOOKUP_FLAGS, LOOKUP_INVERTED);
        }
    });
}

/// Goes on only if the address in `field` is in the set; it stays in the first register.
fn listed(batch: &mut Batch, field: Field, set: &str) {
    payload(batch, field, if [VIPS4, QUIET4].contains(&set) { 4 } else { 16 });
    lookup(batch, set, false);
}

/// Drops the packet when the address in the first register has no lease.
fn drop_without(batch: &mut Batch, leases: &str) {
    lookup(batch, leases, true);
    drop_packet(batch);
}

fn drop_packet(batch: &mut Batch) {
    expression(batch, "immediate", |batch| {
        batch.put_number(IMMEDIATE_REGISTER, REGISTER_VERDICT);
        let data = batch.open(IMMEDIATE_DATA);
        let verdict = batch.open(DATA_VERDICT);
        batch.put_number(VERDICT_CODE, DROP);
        batch.close(verdict);
        batch.close(data);
    });
}
