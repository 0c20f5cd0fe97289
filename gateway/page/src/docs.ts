import "./styles/tokens.css";
import "./styles/base.css";
import { mount } from "svelte";
import Reference from "./docs/Reference.svelte";

const target = document.getElementById("app");
if (target) mount(Reference, { target });
