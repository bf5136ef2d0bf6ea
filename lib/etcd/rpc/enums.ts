/** The enums of etcd's API, as etcd3 names them. A request takes the member or its name; an answer holds the name. */

/** How a range is sorted. */
export enum SortOrder {
  /** As etcd holds it: by key, ascending. */
  None = 0,
  Ascend = 1,
  Descend = 2,
}

/** What a range is sorted by. */
export enum SortTarget {
  Key = 0,
  Version = 1,
  Create = 2,
  Mod = 3,
  Value = 4,
}

/** How a compare of a transaction decides. */
export enum CompareResult {
  Equal = 0,
  Greater = 1,
  Less = 2,
  NotEqual = 3,
}

/** What of a key a compare looks at. */
export enum CompareTarget {
  Version = 0,
  Create = 1,
  Mod = 2,
  Value = 3,
  Lease = 4,
}

/** Events that a watch leaves out. */
export enum FilterType {
  /** No puts. */
  Noput = 0,
  /** No deletes. */
  Nodelete = 1,
}

/** What a member raises the alarm about. */
export enum AlarmType {
  /** In a request: every kind. */
  None = 0,
  /** The store has reached its quota: it takes no more writes. */
  Nospace = 1,
  /** The store of a member differs from the others'. */
  Corrupt = 2,
}

/** What to do with an alarm. */
export enum AlarmAction {
  Get = 0,
  Activate = 1,
  Deactivate = 2,
}

/** A step of a downgrade of the cluster. */
export enum DowngradeAction {
  /** Only says whether it could be done. */
  Validate = 0,
  Enable = 1,
  Cancel = 2,
}

/** What happened to a key. */
export enum EventType {
  Put = 0,
  /** Deleted, or expired with its lease. */
  Delete = 1,
}

/** What a role may do with a range of keys. */
export enum Permission {
  Read = 0,
  Write = 1,
  Readwrite = 2,
}
