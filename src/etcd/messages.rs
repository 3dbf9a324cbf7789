//! What is said to etcd and what it answers: the messages of etcd 3.5's `rpc.proto`, `kv.proto` and `auth.proto` that
//! keller uses, with their field names in Rust's spelling. Fields that it does not use are left out: whoever reads skips
//! what is unknown.

/// With every answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResponseHeader {
    /// The cluster that answers.
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    /// The member that answers.
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    /// Of the store, when the request was applied.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// Asks for keys.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) limit: i64,
    #[prost(bool, tag = "7")]
    pub(super) serializable: bool,
    #[prost(bool, tag = "8")]
    pub(super) keys_only: bool,
    #[prost(bool, tag = "9")]
    pub(super) count_only: bool,
}

/// Keys.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(super) keys: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    pub(super) count: i64,
}

/// A key with what it holds.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// The revision of its last change.
    #[prost(int64, tag = "3")]
    pub changed_at: i64,
    /// What it holds; nothing where only names were asked for.
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
}

/// Writes a key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// Deletes a key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
}

/// Does all of `success` where what `compare` says is so, and else nothing.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<RequestOp>,
}

/// That a key was changed last at a revision; 0 where there is no such key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Compare {
    /// 0: they are the same.
    #[prost(int32, tag = "1")]
    pub(super) result: i32,
    /// 2: the revision of the last change.
    #[prost(int32, tag = "2")]
    pub(super) target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key: Vec<u8>,
    /// One of several that exclude each other, so that it is written although it is 0.
    #[prost(int64, optional, tag = "6")]
    pub(super) changed_at: Option<i64>,
}

/// One of what a transaction does.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RequestOp {
    #[prost(message, optional, tag = "2")]
    pub(super) put: Option<PutRequest>,
    #[prost(message, optional, tag = "3")]
    pub(super) delete: Option<DeleteRangeRequest>,
}

/// Whether it was done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct TxnResponse {
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
}

/// A member as the cluster has it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Member {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name; nothing as long as it was never started.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Where other members reach it.
    #[prost(string, repeated, tag = "3")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; nothing as long as it was never started.
    #[prost(string, repeated, tag = "4")]
    pub client_urls: Vec<String>,
    /// Whether it has no vote yet.
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
}

/// Takes a member in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MemberAddRequest {
    #[prost(string, repeated, tag = "1")]
    pub(super) peer_urls: Vec<String>,
    #[prost(bool, tag = "2")]
    pub(super) is_learner: bool,
}

/// A member was taken in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MemberAddResponse {
    #[prost(message, optional, tag = "2")]
    pub(super) member: Option<Member>,
}

/// Names a member: removes it, or gives it a vote.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MemberIdRequest {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
}

/// Asks for the members.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MemberListRequest {
    #[prost(bool, tag = "1")]
    pub(super) linearizable: bool,
}

/// All members. Also the answer to a change of one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MembersResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    pub(super) members: Vec<Member>,
}

/// How a member is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Status {
    /// Who says so.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Of etcd.
    #[prost(string, tag = "2")]
    pub version: String,
    /// Bytes of its database's file.
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    /// Number of the leader as it knows it, 0 without one.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
    /// Last entry of the log that it knows to be committed.
    #[prost(uint64, tag = "5")]
    pub raft_index: u64,
    /// Term of the log.
    #[prost(uint64, tag = "6")]
    pub raft_term: u64,
    /// Last entry of the log that it has applied.
    #[prost(uint64, tag = "7")]
    pub raft_applied_index: u64,
    /// What is wrong, in etcd's words.
    #[prost(string, repeated, tag = "8")]
    pub errors: Vec<String>,
    /// Bytes of its database that are in use.
    #[prost(int64, tag = "9")]
    pub db_size_in_use: i64,
    /// Whether it has no vote yet.
    #[prost(bool, tag = "10")]
    pub is_learner: bool,
}

/// A message without a field.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Empty {}

/// Reads and changes alarms.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct AlarmRequest {
    /// 0 reads, 2 takes away.
    #[prost(int32, tag = "1")]
    pub(super) action: i32,
    #[prost(uint64, tag = "2")]
    pub(super) member_id: u64,
    #[prost(int32, tag = "3")]
    pub(super) alarm: i32,
}

/// An alarm that was raised.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Alarm {
    /// The member that raised it.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// See [`NO_SPACE`] and [`CORRUPT`].
    #[prost(int32, tag = "2")]
    pub kind: i32,
}

/// The database has reached its quota.
pub const NO_SPACE: i32 = 1;
/// The member's data differ from the others'.
pub const CORRUPT: i32 = 2;

/// All alarms.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct AlarmResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) alarms: Vec<Alarm>,
}

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct SnapshotResponse {
    #[prost(uint64, tag = "2")]
    pub(super) remaining_bytes: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) blob: Vec<u8>,
}

/// Whether rights are asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct AuthStatusResponse {
    #[prost(bool, tag = "2")]
    pub(super) enabled: bool,
}

/// A user that is known by its certificate alone.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct UserAddRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "3")]
    pub(super) options: Option<UserAddOptions>,
}

/// `authpb.UserAddOptions`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct UserAddOptions {
    #[prost(bool, tag = "1")]
    pub(super) no_password: bool,
}

/// A user has a role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct UserGrantRoleRequest {
    #[prost(string, tag = "1")]
    pub(super) user: String,
    #[prost(string, tag = "2")]
    pub(super) role: String,
}

/// A role without rights.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RoleAddRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

/// A right for a role.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct RoleGrantPermissionRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) permission: Option<Permission>,
}

/// `authpb.Permission`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Permission {
    /// 2 reads and writes.
    #[prost(int32, tag = "1")]
    pub(super) kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) range_end: Vec<u8>,
}
