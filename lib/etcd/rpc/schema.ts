export type MessageName = string;
