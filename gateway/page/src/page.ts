import "./styles/tokens.css";
import "./styles/base.css";
import { mount } from "svelte";
import Page from "./components/Page.svelte";

const target = document.getElementById("app");
if (target) mount(Page, { target });
