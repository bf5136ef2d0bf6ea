/** rollcall/once: what is done once, however often it is asked for. */

export {};
