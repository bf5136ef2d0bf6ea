// What the protocol does not say of its services and methods.

/**
 * By service and method:
 *
 * - `does`: how the method's doc comment begins. It goes on with how long the method may take and how it is tried again
 * - `reads`: whether it changes nothing, so that it may be sent again after any failure. `depends`: on the request, as
 *   `does` says in its last half sentence and `readsOnly` of lib/etcd/rpc/methods.ts finds out
 * - `long`: whether it may take minutes on a large store, so that no default time limit holds. `depends`: on the request,
 *   as `does` says and `takesLong` finds out
 * - `ends`: how the comment ends
 */
export const SERVICES = {
  KV: {
    about: 'Keys and values.',
    methods: {
      range: { does: 'Reads one key or a range.', reads: true },
      rangeStream: {
        does: 'Reads a range piece by piece, each of about the size of the largest request: for a range that is too large for one answer. All pieces are of one revision. Needs a server from 3.7 on; an older one ends the stream with `GRPCNotImplementedError`, as 3.7 does when `req` sorts, or filters by revision. A wrong `req` is refused at once.',
        reads: true,
        long: true,
      },
      put: { does: 'Writes one key.' },
      deleteRange: { does: 'Deletes one key or a range.' },
      txn: {
        does: 'Runs a transaction: conditions, and what to do if they hold and if not, all at once. Tried again as a read when it holds only reads;',
        reads: 'depends',
      },
      compact: {
        does: 'Drops the history before a revision. With `physical` no default time limit holds.',
        long: 'depends',
        ends: 'Rejects with `GRPCOutOfRangeError` when the revision is gone already, or still to come.',
      },
    },
  },
  Watch: {
    about: 'Watches, as etcd sends them. `client.watch()` is the one to use: it resumes after a failure.',
    methods: {
      watch: {
        does: 'Opens a stream on which watches are created and cancelled, and which reports what they see.',
        reads: true,
      },
    },
  },
  Lease: {
    about: 'Leases.',
    methods: {
      leaseGrant: { does: 'Makes a lease. Nothing keeps it alive.' },
      leaseRevoke: {
        does: 'Ends a lease and deletes its keys.',
        ends: 'Rejects with `EtcdLeaseInvalidError` when there is no such lease.',
      },
      leaseKeepAlive: {
        does: 'Opens a stream on which leases are kept alive: each request written is answered once.',
        reads: true,
        ends: '`client.lease()` does all that by itself.',
      },
      leaseTimeToLive: {
        does: "How long a lease has left, and which keys it holds. An unknown lease has a TTL of `'-1'`.",
        reads: true,
      },
      leaseLeases: { does: 'Lists all leases.', reads: true },
    },
  },
  Cluster: {
    about: 'The members of the cluster.',
    methods: {
      memberAdd: { does: 'Adds a member, which is then to be started.' },
      memberRemove: { does: 'Removes a member.' },
      memberUpdate: { does: 'Changes the peer URLs of a member.' },
      memberList: { does: 'Lists the members.', reads: true },
      memberPromote: { does: 'Gives a learner its vote.' },
    },
  },
  Maintenance: {
    about: 'Care of the members. A call reaches whichever member the client is connected to.',
    methods: {
      alarm: { does: 'Lists, raises or ends alarms. `Get` only reads and is tried again as a read;', reads: 'depends' },
      status: { does: 'How the member is.', reads: true },
      defragment: {
        does: "Gives the unused space of the member's store back. The member answers nothing meanwhile.",
        long: true,
      },
      hash: { does: "A checksum of the member's whole store; only for tests.", reads: true, long: true },
      hashKV: { does: 'A checksum of the keys up to a revision.', reads: true, long: true },
      snapshot: {
        does: "The store of the member, piece by piece, with the token of the client's user.",
        reads: true,
        long: true,
      },
      moveLeader: {
        does: 'Lets another member lead. Rejects with `GRPCFailedPreconditionError` unless the leader itself is asked.',
      },
      downgrade: {
        does: 'Prepares the cluster for an older version, or ends that. Needs a server from 3.5 on. `Validate` only reads and is tried again as a read;',
        reads: 'depends',
      },
    },
  },
  Auth: {
    about: 'Users and roles. Passwords and tokens never appear in an error.',
    methods: {
      authEnable: { does: 'Turns authentication on. Needs a user `root` with the role `root`.' },
      authDisable: { does: 'Turns authentication off.' },
      authStatus: { does: 'Whether authentication is on. Needs a server from 3.5 on.', reads: true },
      authenticate: {
        does: 'Exchanges a password for a token. The client does so by itself for the user of its options.',
        reads: true,
        ends: 'Rejects with `EtcdAuthenticationFailedError` when name or password is wrong.',
      },
      userAdd: { does: 'Adds a user.', ends: 'Rejects with `EtcdUserExistsError` when there is one of that name.' },
      userGet: {
        does: 'The roles of a user.',
        reads: true,
        ends: 'Rejects with `EtcdUserNotFoundError` when there is no such user.',
      },
      userList: { does: 'Lists the users.', reads: true },
      userDelete: { does: 'Deletes a user.', ends: 'Rejects with `EtcdUserNotFoundError` when there is no such user.' },
      userChangePassword: {
        does: 'Gives a user another password.',
        ends: 'Rejects with `EtcdUserNotFoundError` when there is no such user.',
      },
      userGrantRole: {
        does: 'Gives a user a role.',
        ends: 'Rejects with `EtcdUserNotFoundError` or `EtcdRoleNotFoundError` when there is no such user or role.',
      },
      userRevokeRole: {
        does: 'Takes a role from a user.',
        ends: 'Rejects with `EtcdRoleNotGrantedError` when the user has not got it.',
      },
      roleAdd: { does: 'Adds a role.', ends: 'Rejects with `EtcdRoleExistsError` when there is one of that name.' },
      roleGet: {
        does: 'What a role may do.',
        reads: true,
        ends: 'Rejects with `EtcdRoleNotFoundError` when there is no such role.',
      },
      roleList: { does: 'Lists the roles.', reads: true },
      roleDelete: { does: 'Deletes a role.', ends: 'Rejects with `EtcdRoleNotFoundError` when there is no such role.' },
      roleGrantPermission: {
        does: 'Lets a role read or write a key or a range.',
        ends: 'Rejects with `EtcdRoleNotFoundError` when there is no such role.',
      },
      roleRevokePermission: {
        does: 'Takes such a permission back. Key and range must be as they were granted.',
        ends: 'Rejects with `EtcdRoleNotFoundError` when there is no such role.',
      },
    },
  },
};
