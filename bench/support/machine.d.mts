/** Whether the addon was built without optimization. */
export function isDebugBuild(): boolean;
