//! The numbers of `linux/netfilter/nf_tables.h`, `nfnetlink.h` and the hooks' headers that the fence is written with.

pub(super) const SUBSYSTEM: u16 = 10;
pub(super) const BATCH_BEGIN: u16 = 16;
pub(super) const BATCH_END: u16 = 17;

pub(super) const NEW_TABLE: u16 = 0;
pub(super) const GET_TABLE: u16 = 1;
pub(super) const DEL_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const DEL_CHAIN: u16 = 5;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
pub(super) const NEW_SET: u16 = 9;
pub(super) const GET_SET: u16 = 10;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const GET_ELEMENT: u16 = 13;
pub(super) const DEL_ELEMENT: u16 = 14;

pub(super) const FAMILY_NONE: u8 = 0;
pub(super) const FAMILY_INET: u8 = 1;
pub(super) const FAMILY_ARP: u8 = 3;
pub(super) const FAMILY_NETDEV: u8 = 5;

pub(super) const NESTED: u16 = 0x8000;

pub(super) const LIST_ELEMENT: u16 = 1;

/// The name of the table in every message about something in it, too.
pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
/// How many chains, sets and other things it holds.
pub(super) const TABLE_USE: u16 = 3;

/// The multicast group of changes, as a mask (`NFNLGRP_NFTABLES`).
pub(super) const CHANGES: u32 = 1 << 6;
/// Told after each transaction, of no table.
pub(super) const NEW_GENERATION: u16 = 15;

pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
/// `NF_ACCEPT` of `linux/netfilter.h`.
pub(super) const ACCEPT: u64 = 1;
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
pub(super) const HOOK_DEVICE: u16 = 3;

pub(super) const INET_PREROUTING: u32 = 0;
pub(super) const INET_OUTPUT: u32 = 3;
pub(super) const ARP_INPUT: u32 = 0;
pub(super) const ARP_OUTPUT: u32 = 1;
pub(super) const NETDEV_EGRESS: u32 = 1;

pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const EXPRESSION_NAME: u16 = 1;
pub(super) const EXPRESSION_DATA: u16 = 2;

pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const SET_KEY_TYPE: u16 = 4;
pub(super) const SET_KEY_LENGTH: u16 = 5;
pub(super) const SET_ID: u16 = 10;
pub(super) const SET_HAS_TIMEOUTS: u32 = 0x10;

/// Only for people: what `nft list` prints a key as.
pub(super) const TYPE_IPV4: u32 = 7;
pub(super) const TYPE_IPV6: u32 = 8;
pub(super) const TYPE_MARK: u32 = 19;

pub(super) const ELEMENTS_TABLE: u16 = 1;
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS_LIST: u16 = 3;
pub(super) const ELEMENT_KEY: u16 = 1;
pub(super) const ELEMENT_TIMEOUT: u16 = 4;
/// Time that it has left, in milliseconds.
pub(super) const ELEMENT_EXPIRATION: u16 = 5;

pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const DROP: u32 = 0;

pub(super) const REGISTER_VERDICT: u32 = 0;
pub(super) const REGISTER: u32 = 1;
pub(super) const SECOND_REGISTER: u32 = 2;

pub(super) const META_REGISTER: u16 = 1;
pub(super) const META_KEY: u16 = 2;
pub(super) const META_PROTOCOL: u32 = 1;
pub(super) const META_NFPROTO: u32 = 15;
pub(super) const META_L4PROTO: u32 = 16;

pub(super) const COMPARE_REGISTER: u16 = 1;
pub(super) const COMPARE_OPERATION: u16 = 2;
pub(super) const COMPARE_DATA: u16 = 3;
pub(super) const EQUAL: u32 = 0;

pub(super) const BITWISE_SOURCE: u16 = 1;
pub(super) const BITWISE_REGISTER: u16 = 2;
pub(super) const BITWISE_LENGTH: u16 = 3;
pub(super) const BITWISE_MASK: u16 = 4;
pub(super) const BITWISE_XOR: u16 = 5;

pub(super) const PAYLOAD_REGISTER: u16 = 1;
pub(super) const PAYLOAD_BASE: u16 = 2;
pub(super) const PAYLOAD_OFFSET: u16 = 3;
pub(super) const PAYLOAD_LENGTH: u16 = 4;
pub(super) const NETWORK_HEADER: u32 = 1;
pub(super) const TRANSPORT_HEADER: u32 = 2;

pub(super) const FIB_REGISTER: u16 = 1;
pub(super) const FIB_RESULT: u16 = 2;
pub(super) const FIB_FLAGS: u16 = 3;
pub(super) const FIB_ADDRESS_TYPE: u32 = 3;
pub(super) const FIB_OF_DESTINATION: u32 = 2;
/// `RTN_LOCAL` of `linux/rtnetlink.h`.
pub(super) const LOCAL: u32 = 2;

pub(super) const LOOKUP_SET: u16 = 1;
pub(super) const LOOKUP_REGISTER: u16 = 2;
pub(super) const LOOKUP_FLAGS: u16 = 5;
pub(super) const LOOKUP_INVERTED: u32 = 1;

pub(super) const IMMEDIATE_REGISTER: u16 = 1;
pub(super) const IMMEDIATE_DATA: u16 = 2;
