/** The binding to the native addon: the only file that imports it. It is loaded at the first use, not with the package. */

import type * as Binding from '#native';

export type {
  CampaignHandle,
  CancelHandle,
  ClientHandle,
  EtcdHandle,
  EtcdWatchHandle,
  HoldHandle,
  LeaseHandle,
  LockHandle,
  MemoryServerHandle,
  NativeCampaignFailure,
  NativeCommit,
  NativeDifference,
  NativeEtcdClientOptions,
  NativeEvent,
  NativeFailure,
  NativeHoldFailure,
  NativeHoldOptions,
  NativeInstance,
  NativeLeader,
  NativeLeaseEvent,
  NativeList,
  NativeNames,
  NativeOptions,
  NativePair,
  NativePairs,
  NativeRange,
  NativeSlotWindow,
  NativeTlsOptions,
  NativeWatchFailure,
  ObserverHandle,
  PairsWatcherHandle,
  RegistrationHandle,
  ServicesWatcherHandle,
  SlotHandle,
  StreamHandle,
  WatcherHandle,
} from '#native';

let binding: typeof Binding | undefined;

/** The native addon; throws what its loader says when there is none for this platform. */
export function native(): typeof Binding {
  binding ??= require('#native') as typeof Binding;
  return binding;
}
