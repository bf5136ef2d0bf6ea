/** rollcall/uid: ids that are unique in a fleet. */

export {};
